//! Little-endian numbers and length-prefixed bytes: how fields are written, and how they are read from a
//! peer that may send anything.
//!
//! The reader never trusts a count: it is compared with its limit and with what is there before anything is
//! allocated.

use super::WireError;

/// Appends fields to the head of a packet.
#[derive(Debug, Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn finish(self) -> Vec<u8> {
        self.bytes
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.u8(value.into());
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.raw(&value.to_le_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// A tag, then the value if there is one.
    pub(super) fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    /// A length, then that many bytes; an error if there are more than `limit`.
    pub(super) fn counted(
        &mut self,
        what: &'static str,
        bytes: &[u8],
        limit: usize,
    ) -> Result<(), WireError> {
        let length = within(what, bytes.len(), limit)?;
        self.u32(length);
        self.raw(bytes);
        Ok(())
    }

    /// A text that may be cut, at a character's boundary, to fit into `limit` bytes.
    pub(super) fn text(&mut self, text: &str, limit: usize) {
        let kept = prefix(text, limit);
        self.u32(kept.len() as u32);
        self.raw(kept.as_bytes());
    }
}

/// `length` as it is written, if it is within `limit`.
pub(super) fn within(what: &'static str, length: usize, limit: usize) -> Result<u32, WireError> {
    let error = WireError::TooLong { what, got: length as u64, limit: limit as u64 };
    if length > limit {
        return Err(error);
    }
    u32::try_from(length).map_err(|_| error)
}

/// The largest prefix of `text` that ends at a character's boundary and has at most `limit` bytes.
fn prefix(text: &str, limit: usize) -> &str {
    let ends = (0..=limit.min(text.len())).rev();
    ends.filter_map(|end| text.get(..end)).next().unwrap_or_default()
}

/// Takes fields off the front of a packet.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whatever has not been read yet.
    pub(super) fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// An error unless everything has been read.
    pub(super) fn finish(self) -> Result<(), WireError> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(WireError::Trailing { bytes }),
        }
    }

    pub(super) fn array<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], WireError> {
        let (front, rest) = self.rest.split_first_chunk().ok_or(WireError::Short { what })?;
        self.rest = rest;
        Ok(*front)
    }

    pub(super) fn u8(&mut self, what: &'static str) -> Result<u8, WireError> {
        self.array::<1>(what).map(|[value]| value)
    }

    pub(super) fn u16(&mut self, what: &'static str) -> Result<u16, WireError> {
        self.array(what).map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, WireError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, WireError> {
        self.array(what).map(u64::from_le_bytes)
    }

    pub(super) fn bool(&mut self, what: &'static str) -> Result<bool, WireError> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            got => Err(WireError::Value { what, got }),
        }
    }

    pub(super) fn option<T>(
        &mut self,
        what: &'static str,
        read: impl FnOnce(&mut Self) -> Result<T, WireError>,
    ) -> Result<Option<T>, WireError> {
        if self.bool(what)? { read(self).map(Some) } else { Ok(None) }
    }

    pub(super) fn counted(
        &mut self,
        what: &'static str,
        limit: usize,
    ) -> Result<&'a [u8], WireError> {
        let length = self.u32(what)? as usize;
        within(what, length, limit)?;
        let (front, rest) = self.rest.split_at_checked(length).ok_or(WireError::Short { what })?;
        self.rest = rest;
        Ok(front)
    }

    pub(super) fn text(&mut self, what: &'static str, limit: usize) -> Result<String, WireError> {
        let bytes = self.counted(what, limit)?;
        let text = std::str::from_utf8(bytes).map_err(|_| WireError::NotText { what })?;
        Ok(text.to_owned())
    }
}
