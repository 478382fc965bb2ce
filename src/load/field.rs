//! Finds one field of a JSON object, without building the rest of it.

use std::fmt::{self, Write as _};

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

/// A value that is longer is as good as none.
const MAX_VALUE: usize = 128;

/// Writes the field `name` of the JSON object `json` into `text`: a text, a number or a truth value. Whether it is
/// there.
pub(super) fn read(json: &[u8], name: &str, text: &mut String) -> bool {
    text.clear();
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let found = deserializer.deserialize_map(Object { name, text: &mut *text });
    found.unwrap_or(false) && text.len() <= MAX_VALUE
}

struct Object<'a> {
    name: &'a str,
    text: &'a mut String,
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let mut is_found = false;
        while let Some(is_it) = map.next_key_seed(Key(self.name))? {
            if is_it {
                map.next_value_seed(Value(&mut *self.text))?;
                is_found = true;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(is_found)
    }
}

/// Whether a key is this one.
struct Key<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

/// The place for a value's text.
struct Value<'a>(&'a mut String);

impl Value<'_> {
    fn put<E: Error>(self, value: impl fmt::Display) -> Result<(), E> {
        self.0.clear();
        write!(self.0, "{value}").map_err(E::custom)
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number or a truth value")
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.put(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.put(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.put(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.put(value)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.put(value)
    }
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn a_field_is_found_whatever_is_around_it() {
        let mut text = String::new();
        for (json, value) in [
            (r#"{"worker":3}"#, Some("3")),
            (r#"{"a":[1,{"worker":2}],"worker":"w-1","b":null}"#, Some("w-1")),
            (r#"{"w\u006frker":true}"#, Some("true")),
            (r#"{"worker":-1.5}"#, Some("-1.5")),
            (r#"{"other":{"worker":2}}"#, None),
            (r#"{"worker":null}"#, None),
            (r#"{"worker":[1]}"#, None),
            (r#"{"worker":1"#, None),
            ("[1]", None),
            ("", None),
            ("\u{1}", None),
        ] {
            let found = read(json.as_bytes(), "worker", &mut text);
            assert_eq!(found.then_some(text.as_str()), value, "{json}");
        }
        let long = format!(r#"{{"worker":"{}"}}"#, "x".repeat(129));
        assert!(!read(long.as_bytes(), "worker", &mut text));
    }
}
