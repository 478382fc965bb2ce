//! What a worker was given at its start: arguments, variables, data, regions, the pool.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    sync::Arc,
};

use serde::de::DeserializeOwned;

use super::Worker;
use crate::{
    error::{Error, ErrorKind, Result},
    message::Message,
    pool::Pool,
    shared::{
        Regions, SharedBuffer,
        store::{Choice, Store},
    },
};

/// What a worker starts with. Nothing of it but the regions, and the pool where memory is shared, is
/// shared with the primary or with other workers.
#[derive(Debug)]
pub(crate) struct Given {
    args: Vec<OsString>,
    vars: BTreeMap<OsString, OsString>,
    data: RefCell<Data>,
    regions: Regions,
    pool: Pool,
}

#[derive(Debug)]
enum Data {
    None,
    Here(Message),
    Taken,
}

impl Given {
    pub(crate) fn new(
        args: Vec<OsString>,
        vars: BTreeMap<OsString, OsString>,
        data: Option<Message>,
        regions: Regions,
        pool: Pool,
    ) -> Self {
        Self { args, vars, data: RefCell::new(data.map_or(Data::None, Data::Here)), regions, pool }
    }

    fn take<T: DeserializeOwned + 'static>(&self) -> Result<T> {
        let data = self.data.replace(Data::Taken);
        match data {
            Data::Here(message) => match message.check::<T>() {
                Ok(()) => message.get(),
                Err(error) => {
                    self.data.replace(Data::Here(message));
                    Err(error)
                }
            },
            Data::None => {
                self.data.replace(Data::None);
                Err(missing::<T>("none was given: use `Fork::data`"))
            }
            Data::Taken => Err(missing::<T>("it was taken already")),
        }
    }
}

fn missing<T>(cause: &str) -> Error {
    let asked = std::any::type_name::<T>();
    let text = format!("the worker has no data; a `{asked}` was asked for, but {cause}");
    Error::new(ErrorKind::Type, text)
}

impl Worker {
    /// The worker's arguments, without the program's own name (Node: `process.argv`): those of
    /// [`Setup::args`](crate::Setup::args), else the primary's.
    #[must_use]
    pub fn args(&self) -> &[OsString] {
        &self.state.given.args
    }

    /// A variable of the worker's environment (Node: `process.env`), as it was when the worker was
    /// started: the primary's at the fork, with what [`Setup::env`](crate::Setup::env) and
    /// [`Fork::env`](crate::Fork::env) added.
    #[must_use]
    pub fn env(&self, name: impl AsRef<OsStr>) -> Option<OsString> {
        self.state.given.vars.get(name.as_ref()).cloned()
    }

    /// All variables that [`Worker::env`] knows, by name.
    pub fn vars(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.state.given.vars.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }

    /// What [`Fork::data`](crate::Fork::data) gave to this worker (Node: `workerData`). It is there
    /// when the body starts, and can be taken once: a thread gets the very value.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Type`] when there is none, or when it is of another type, naming both; it can
    /// still be taken then. [`ErrorKind::Codec`] when the bytes do not decode.
    pub fn data<T: DeserializeOwned + 'static>(&self) -> Result<T> {
        self.state.given.take()
    }

    /// The memory that [`Builder::region`](crate::Builder::region) declared under this name: the same in
    /// all workers and in the primary.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Setting`] when none was declared.
    pub fn region(&self, name: &str) -> Result<SharedBuffer> {
        self.state.given.regions.get(name)
    }

    /// The pool for work that would hold up the loop, as [`Builder::pool`](crate::Builder::pool) set it:
    /// `worker.pool().run(|| heavy()).await`. Worker threads share one; a worker process has its own, which ends
    /// with it, whatever runs there.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.state.given.pool
    }

    /// The store that [`Builder::store`](crate::Builder::store) chose: the same for all workers and for the
    /// primary. The first call opens it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Setting`] when none was chosen and processes have no default; as
    /// `LmdbStore::open` or `RedisStore::open` when it cannot be opened.
    pub fn store(&self) -> Result<Arc<dyn Store>> {
        self.state.store.borrow().store()
    }

    /// Says which store the body will find. It comes with the body, from the program's own settings.
    pub(crate) fn choose_store(&self, choice: Choice) {
        self.state.store.replace(choice);
    }
}
