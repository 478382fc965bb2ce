//! Messages between the primary and its workers: any serde type, moved where memory is shared,
//! encoded where it is not.

use std::{any::Any, borrow::Cow, fmt};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    config::Memory,
    error::{Context, Error, ErrorKind, Result},
};

/// The default bound on one encoded message: 16 MiB.
pub(crate) const MAX_BYTES: usize = 16 << 20;

/// One message, as the receiving side holds it (Node: the argument of the `message` event).
pub struct Message {
    type_name: Cow<'static, str>,
    payload: Payload,
}

enum Payload {
    /// The value itself.
    Moved(Box<dyn Any + Send>),
    /// MessagePack with named fields, as rmp-serde's `to_vec_named` writes it.
    Encoded(Vec<u8>),
}

impl Message {
    /// Wraps a value for the way it has to travel. A `&'static str` travels as a `String`.
    pub(crate) fn pack<T>(value: T, memory: Memory, max_bytes: usize) -> Result<Self>
    where
        T: Serialize + Send + 'static,
    {
        if let Some(text) = (&value as &dyn Any).downcast_ref::<&'static str>() {
            return Self::pack(String::from(*text), memory, max_bytes);
        }
        let type_name = std::any::type_name::<T>().into();
        let payload = match memory {
            Memory::Shared => Payload::Moved(Box::new(value)),
            Memory::Separate => Payload::Encoded(encode(&value, max_bytes)?),
        };
        Ok(Self { type_name, payload })
    }

    /// A message that arrived in encoded form.
    pub(crate) fn encoded(type_name: String, bytes: Vec<u8>) -> Self {
        Self { type_name: type_name.into(), payload: Payload::Encoded(bytes) }
    }

    /// The type's name and the bytes, of a message in encoded form.
    pub(crate) fn into_encoded(self) -> Option<(String, Vec<u8>)> {
        match self.payload {
            Payload::Encoded(bytes) => Some((self.type_name.into_owned(), bytes)),
            Payload::Moved(_) => None,
        }
    }

    /// Bytes this message takes on a channel: 0 when it is moved.
    pub(crate) fn bytes(&self) -> usize {
        match &self.payload {
            Payload::Encoded(bytes) => bytes.len(),
            Payload::Moved(_) => 0,
        }
    }

    /// The name of the type that was sent.
    #[must_use]
    pub fn type_name(&self) -> &str {
        &self.type_name
    }

    /// Whether the message holds a `T`.
    #[must_use]
    pub fn is<T: 'static>(&self) -> bool {
        match &self.payload {
            Payload::Moved(value) => value.is::<T>(),
            Payload::Encoded(_) => self.type_name == std::any::type_name::<T>(),
        }
    }

    /// The value that was sent.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Type`] when another type was sent, naming both; [`ErrorKind::Codec`] when the
    /// bytes do not decode, as after a reload that changed the type's fields.
    pub fn get<T: DeserializeOwned + 'static>(self) -> Result<T> {
        if !self.is::<T>() {
            return Err(self.mismatch::<T>());
        }
        match self.payload {
            Payload::Encoded(bytes) => decode(&bytes),
            Payload::Moved(value) => match value.downcast::<T>() {
                Ok(value) => Ok(*value),
                Err(value) => {
                    Err(Self { type_name: self.type_name, payload: Payload::Moved(value) }
                        .mismatch::<T>())
                }
            },
        }
    }

    fn mismatch<T>(&self) -> Error {
        let asked = std::any::type_name::<T>();
        Error::new(
            ErrorKind::Type,
            format!("the message holds a `{}`; a `{asked}` was asked for", self.type_name),
        )
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({})", self.type_name)
    }
}

fn encode<T: Serialize>(value: &T, max_bytes: usize) -> Result<Vec<u8>> {
    let bytes = rmp_serde::to_vec_named(value).context(ErrorKind::Codec, || {
        format!("a `{}` could not be encoded as a message", std::any::type_name::<T>())
    })?;
    if bytes.len() > max_bytes {
        return Err(Error::new(
            ErrorKind::TooLarge,
            format!(
                "a message of {} bytes exceeds the limit of {max_bytes}; raise `max_message` or send it in parts",
                bytes.len()
            ),
        ));
    }
    Ok(bytes)
}

/// Decodes the whole of `bytes`: rmp-serde itself would ignore what trails.
fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let text = || format!("a message could not be decoded as a `{}`", std::any::type_name::<T>());
    let mut rest = bytes;
    let value = T::deserialize(&mut rmp_serde::Deserializer::new(&mut rest))
        .context(ErrorKind::Codec, text)?;
    match rest.len() {
        0 => Ok(value),
        trailing => Err(Error::new(
            ErrorKind::Codec,
            format!("{}: {trailing} bytes trail the value", text()),
        )),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn both() -> [Memory; 2] {
        [Memory::Shared, Memory::Separate]
    }

    #[test]
    fn a_value_arrives_as_it_was_sent() {
        for memory in both() {
            let message = Message::pack(vec![1u64, 2, 3], memory, MAX_BYTES).unwrap();
            assert_eq!(message.get::<Vec<u64>>().unwrap(), [1, 2, 3]);
            let message = Message::pack("shutdown", memory, MAX_BYTES).unwrap();
            assert_eq!(message.get::<String>().unwrap(), "shutdown");
        }
    }

    #[test]
    fn a_mismatch_names_both_types() {
        for memory in both() {
            let error =
                Message::pack(7u32, memory, MAX_BYTES).unwrap().get::<String>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Type);
            assert!(
                error.to_string().contains("`u32`") && error.to_string().contains("String`"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_limit_is_named() {
        let error = Message::pack(vec![0u64; 100], Memory::Separate, 10).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert!(error.to_string().contains("limit of 10"), "{error}");
    }

    #[test]
    fn bytes_that_trail_are_refused() {
        let mut bytes = rmp_serde::to_vec_named(&1u8).unwrap();
        bytes.push(0);
        let error = Message::encoded("u8".into(), bytes).get::<u8>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Codec);
    }
}
