//! The regions of a cluster: declared on the builder, made before its first worker, there as long as the
//! cluster.
//!
//! The primary makes them and keeps a descriptor of each where memory is not shared; every worker has all
//! of them before its body runs. `README.md` beside this file has the sizes and what holds for the memory.

use std::{collections::BTreeMap, io, os::fd::OwnedFd, sync::Arc};

use super::{Parties, SharedBuffer, StatsPage, region::Region};
use crate::{
    config::MAX_REGIONS,
    error::{Context as _, Error, ErrorKind, Result},
    sys::memory::SharedWords,
};

/// The longest name of a region, in bytes.
const MAX_NAME: usize = 128;

/// The largest region, in bytes.
const MAX_BYTES: usize = 1 << 30;

const WORD: usize = size_of::<u64>();

/// The size of each region in bytes, by name.
pub(crate) type Sizes = BTreeMap<String, usize>;

/// The sizes of regions that were declared, each rounded up to whole words.
///
/// # Errors
///
/// [`ErrorKind::Setting`]: too many, the same name twice, or a name or a size out of its limits.
pub(crate) fn check(declared: &[(String, usize)]) -> Result<Sizes> {
    let mut sizes = Sizes::new();
    for (name, bytes) in declared {
        check_one(name, *bytes)?;
        if sizes.insert(name.clone(), bytes.next_multiple_of(WORD)).is_some() {
            return refuse(format!("region {name:?} is declared twice; give each its own name"));
        }
    }
    if sizes.len() > MAX_REGIONS {
        let text = format!("{} regions are declared; there can be {MAX_REGIONS}", sizes.len());
        return refuse(format!("{text}: put more words into one"));
    }
    Ok(sizes)
}

fn check_one(name: &str, bytes: usize) -> Result<()> {
    if !(1..=MAX_NAME).contains(&name.len()) {
        let length = name.len();
        return refuse(format!(
            "a region's name has {length} bytes; it must have from 1 to {MAX_NAME}"
        ));
    }
    if !(1..=MAX_BYTES).contains(&bytes) {
        return refuse(format!(
            "region {name:?} has {bytes} bytes; it must have from 1 to {MAX_BYTES}"
        ));
    }
    Ok(())
}

fn refuse<T>(text: String) -> Result<T> {
    Err(Error::new(ErrorKind::Setting, text))
}

/// All regions of a cluster. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Regions {
    by_name: Arc<BTreeMap<String, SharedBuffer>>,
}

impl Regions {
    /// Regions that threads of this process share.
    pub(crate) fn anonymous(sizes: &Sizes, page: &Arc<StatsPage>) -> Result<Self> {
        let parties = Parties::of_primary(page.clone());
        let made = sizes.iter().map(|(name, bytes)| {
            let words = make(name, *bytes, SharedWords::anonymous)?;
            Ok((name.clone(), SharedBuffer::new(Region::new(words, parties.clone()))))
        });
        Ok(Self { by_name: Arc::new(made.collect::<Result<_>>()?) })
    }

    /// Regions that processes share, and the descriptors to hand to them, in the order of the names.
    pub(crate) fn memfd(sizes: &Sizes, page: &Arc<StatsPage>) -> Result<(Self, Vec<OwnedFd>)> {
        let parties = Parties::of_primary(page.clone());
        let (mut by_name, mut descriptors) = (BTreeMap::new(), Vec::new());
        for (name, bytes) in sizes {
            let memfd = |words| SharedWords::memfd("bimodal-region", words);
            let (words, descriptor) = make(name, *bytes, memfd)?;
            let region = Region::new(words, parties.clone());
            by_name.insert(name.clone(), SharedBuffer::new(region));
            descriptors.push(descriptor);
        }
        Ok((Self { by_name: Arc::new(by_name) }, descriptors))
    }

    /// The regions behind descriptors that came from the primary, with their names and words.
    pub(crate) fn map(
        given: impl Iterator<Item = (String, u64, OwnedFd)>,
        parties: &Parties,
    ) -> Result<Self> {
        let mapped = given.map(|(name, words, descriptor)| {
            let words = usize::try_from(words).map_err(io::Error::other);
            let words = words.and_then(|words| SharedWords::map(descriptor, words));
            let words = words.context(ErrorKind::Start, || format!("map the region {name:?}"))?;
            Ok((name, SharedBuffer::new(Region::new(words, parties.clone()))))
        });
        Ok(Self { by_name: Arc::new(mapped.collect::<Result<_>>()?) })
    }

    /// The region of this name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Setting`]: none was declared.
    pub(crate) fn get(&self, name: &str) -> Result<SharedBuffer> {
        let unknown = || {
            let text = format!("no region is named {name:?}; declare it with `Builder::region`");
            Error::new(ErrorKind::Setting, text)
        };
        self.by_name.get(name).cloned().ok_or_else(unknown)
    }

    /// The names, in order, with the number of words.
    pub(crate) fn words(&self) -> impl Iterator<Item = (&str, usize)> {
        self.by_name.iter().map(|(name, buffer)| (name.as_str(), buffer.len()))
    }
}

fn make<T>(name: &str, bytes: usize, make: impl FnOnce(usize) -> io::Result<T>) -> Result<T> {
    let text = || format!("make the region {name:?} of {bytes} bytes");
    make(bytes.div_ceil(WORD)).context(ErrorKind::Io, text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::id::{Slot, WorkerId};

    /// The page of a cluster, and its only worker.
    fn cluster() -> (Arc<StatsPage>, Parties) {
        let page = StatsPage::heap();
        page.reset(Slot(0), 1, 1);
        (page.clone(), Parties::of_worker(page, WorkerId::new(1), Slot(0)))
    }

    #[test]
    fn what_one_side_writes_the_other_reads_under_the_same_name() {
        let sizes = Sizes::from([("a".into(), 8), ("b".into(), 1 << 20)]);
        let (page, parties) = cluster();
        let (ours, descriptors) = Regions::memfd(&sizes, &page).unwrap();
        let words = ours.words().map(|(name, words)| (name.to_owned(), words as u64));
        let given = words.zip(descriptors).map(|((name, words), fd)| (name, words, fd));
        let theirs = Regions::map(given, &parties).unwrap();
        theirs.get("b").unwrap().store((1 << 17) - 1, 7).unwrap();
        assert_eq!(ours.get("b").unwrap().load((1 << 17) - 1).unwrap(), 7);
        assert_eq!(ours.get("a").unwrap().load(0).unwrap(), 0);
    }

    #[test]
    fn a_descriptor_of_something_else_is_refused() {
        let (page, parties) = cluster();
        let sizes = Sizes::from([("a".into(), 8)]);
        let (_ours, mut descriptors) = Regions::memfd(&sizes, &page).unwrap();
        let given = |words, fd| std::iter::once(("a".to_owned(), words, fd));
        let null = std::fs::File::open("/dev/null").unwrap().into();
        for refused in [given(1, null), given(17, descriptors.remove(0))] {
            let error = Regions::map(refused, &parties).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Start);
            assert!(error.to_string().starts_with("map the region \"a\": "), "{error}");
        }
    }

    #[test]
    fn sizes_are_rounded_up_to_words() {
        let declared = [("a".to_owned(), 1), ("b".to_owned(), 8), ("c".to_owned(), 1 << 30)];
        let sizes: Vec<_> = check(&declared).unwrap().into_values().collect();
        assert_eq!(sizes, [8, 8, 1 << 30]);
    }
}
