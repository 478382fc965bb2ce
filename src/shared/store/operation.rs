//! What a write does to an entry, as pure functions of the value that is there: the one meaning of a write
//! for every backend that keeps its entries itself.

use std::{borrow::Cow, time::Duration};

use crate::error::{Error, ErrorKind, Result};

/// A write to one key.
pub(super) trait Operation {
    /// What its caller is told.
    type Done;

    /// What becomes of an entry with this value, `None` if there is none.
    ///
    /// # Errors
    ///
    /// The entry stays as it is.
    fn decide(&self, current: Option<&[u8]>) -> Result<(Change<'_>, Self::Done)>;
}

/// What becomes of an entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change<'a> {
    Keep,
    Remove,
    Put { value: Cow<'a, [u8]>, life: Life },
}

/// How long a value that is put lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// As long as the one before it would have, without an end if there was none.
    AsBefore,
    For(Option<Duration>),
}

pub(super) struct Set {
    pub(super) value: Vec<u8>,
    pub(super) life: Option<Duration>,
}

pub(super) struct Delete;

pub(super) struct Add {
    pub(super) amount: i64,
}

pub(super) struct CompareAndSet {
    pub(super) expected: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) life: Option<Duration>,
}

impl CompareAndSet {
    pub(super) fn new(
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
        life: Option<Duration>,
    ) -> Self {
        Self { expected: expected.map(Into::into), value: value.map(Into::into), life }
    }
}

impl Operation for Set {
    type Done = ();

    fn decide(&self, _current: Option<&[u8]>) -> Result<(Change<'_>, ())> {
        Ok((put(&self.value, self.life), ()))
    }
}

impl Operation for Delete {
    type Done = bool;

    fn decide(&self, current: Option<&[u8]>) -> Result<(Change<'_>, bool)> {
        Ok((Change::Remove, current.is_some()))
    }
}

impl Operation for Add {
    type Done = i64;

    fn decide(&self, current: Option<&[u8]>) -> Result<(Change<'_>, i64)> {
        let before = current.map_or(Ok(0), number)?;
        let sum = before.checked_add(self.amount).ok_or_else(overflow)?;
        let value = Cow::Owned(sum.to_string().into_bytes());
        Ok((Change::Put { value, life: Life::AsBefore }, sum))
    }
}

impl Operation for CompareAndSet {
    type Done = bool;

    fn decide(&self, current: Option<&[u8]>) -> Result<(Change<'_>, bool)> {
        if current != self.expected.as_deref() {
            return Ok((Change::Keep, false));
        }
        let change = self.value.as_ref().map_or(Change::Remove, |value| put(value, self.life));
        Ok((change, true))
    }
}

fn put(value: &[u8], life: Option<Duration>) -> Change<'_> {
    Change::Put { value: Cow::Borrowed(value), life: Life::For(life) }
}

/// The number that a text is, if it is written as `add` writes it.
fn number(text: &[u8]) -> Result<i64> {
    let parsed = std::str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok());
    parsed.filter(|number| number.to_string().as_bytes() == text).ok_or_else(not_a_number)
}

/// The value of a key is no number to add to.
pub(super) fn not_a_number() -> Error {
    let text =
        "the value of the key is no decimal number of 64 bits, so nothing can be added to it";
    Error::new(ErrorKind::Type, text)
}

/// The sum does not fit.
pub(super) fn overflow() -> Error {
    Error::new(ErrorKind::Range, "the sum does not fit into 64 bits; the value has not changed")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn add(current: Option<&str>, amount: i64) -> Result<i64, ErrorKind> {
        let add = Add { amount };
        let decided = add.decide(current.map(str::as_bytes)).map_err(|error| error.kind())?;
        let (Change::Put { value, life: Life::AsBefore }, sum) = decided else {
            panic!("{:?}", decided.0)
        };
        assert_eq!(*value, *sum.to_string().as_bytes());
        Ok(sum)
    }

    #[test]
    fn only_what_add_writes_can_be_added_to() {
        assert_eq!(add(None, -3), Ok(-3));
        assert_eq!(add(Some("-9223372036854775808"), i64::MAX), Ok(-1));
        for text in ["", "x", " 1", "1 ", "+1", "01", "-0", "1.0", "9223372036854775808"] {
            assert_eq!(add(Some(text), 1), Err(ErrorKind::Type), "{text:?}");
        }
        assert_eq!(add(Some("9223372036854775807"), 1), Err(ErrorKind::Range));
        assert_eq!(add(Some("-1"), i64::MIN), Err(ErrorKind::Range));
    }

    #[test]
    fn absent_is_something_to_compare_with() {
        for (current, expected, value, done) in [
            (None, None, Some("a"), true),
            (Some("a"), None, Some("b"), false),
            (None, Some("a"), Some("b"), false),
            (Some("a"), Some("a"), None, true),
            (Some(""), None, None, false),
            (None, None, None, true),
        ] {
            let bytes = |text: Option<&'static str>| text.map(str::as_bytes);
            let operation = CompareAndSet::new(bytes(expected), bytes(value), None);
            let (change, told) = operation.decide(bytes(current)).unwrap();
            assert_eq!(told, done, "{current:?} {expected:?}");
            let becomes = bytes(value).map_or(Change::Remove, |value| put(value, None));
            assert_eq!(change, if done { becomes } else { Change::Keep });
        }
    }
}
