//! How a value becomes bytes where memory is not shared.

use std::{fmt, str::FromStr};

use serde::{Serialize, de::DeserializeOwned};

use crate::error::{Context as _, Error, ErrorKind, Result};

/// How messages between processes are encoded (Node: the setting `serialization`). Worker threads need
/// none: their messages are moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Codec {
    /// MessagePack with named fields: compact, and keeps what JSON cannot, such as NaN and keys that
    /// are no texts (Node: `advanced`). The default.
    #[default]
    MessagePack,
    /// JSON (Node: `json`). NaN and the infinities become `null`, which does not decode as a number.
    Json,
}

impl Codec {
    pub(crate) fn encode<T: Serialize>(self, value: &T, max_bytes: usize) -> Result<Vec<u8>> {
        let text =
            || format!("a `{}` could not be encoded as a message", std::any::type_name::<T>());
        let bytes = match self {
            Self::MessagePack => rmp_serde::to_vec_named(value).context(ErrorKind::Codec, text)?,
            Self::Json => serde_json::to_vec(value).context(ErrorKind::Codec, text)?,
        };
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

    pub(crate) fn decode<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T> {
        let text =
            || format!("a message could not be decoded as a `{}`", std::any::type_name::<T>());
        match self {
            Self::MessagePack => decode_message_pack(bytes, text),
            Self::Json => serde_json::from_slice(bytes).context(ErrorKind::Codec, text),
        }
    }
}

/// Decodes the whole of `bytes`: rmp-serde itself would ignore what trails.
fn decode_message_pack<T: DeserializeOwned>(bytes: &[u8], text: impl Fn() -> String) -> Result<T> {
    let mut rest = bytes;
    let value = T::deserialize(&mut rmp_serde::Deserializer::new(&mut rest))
        .context(ErrorKind::Codec, &text)?;
    match rest.len() {
        0 => Ok(value),
        trailing => Err(Error::new(
            ErrorKind::Codec,
            format!("{}: {trailing} bytes trail the value", text()),
        )),
    }
}

impl FromStr for Codec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "message-pack" => Ok(Self::MessagePack),
            "json" => Ok(Self::Json),
            _ => Err(Error::new(
                ErrorKind::Setting,
                format!("codec is {text:?}; it must be message-pack or json"),
            )),
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::MessagePack => "message-pack",
            Self::Json => "json",
        })
    }
}
