//! The settings of a pool: chosen, checked.

use std::{ops::RangeInclusive, time::Duration};

use super::Pool;
use crate::{
    error::{Error, ErrorKind, Result},
    sys::thread::Cores,
};

/// The most threads of one pool.
const MAX_THREADS: usize = 512;

/// What happens to a task when all threads are busy and the queue is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WhenFull {
    /// The caller waits for a place: [`Pool::run`] without blocking the loop, [`Pool::submit`] by blocking
    /// its thread. The default. On a thread of the pool itself, which the others may be waiting for,
    /// `submit` runs the task at once instead.
    #[default]
    Wait,
    /// The task is handed back in the error, whose kind is [`ErrorKind::Full`].
    Reject,
    /// The task runs at once in the caller, which on an event loop blocks that loop.
    RunInCaller,
    /// The oldest task of the lowest lane that has one is dropped: its caller gets an error of kind
    /// [`ErrorKind::Full`]. A task never drops one of a higher lane; it is handed back then.
    DropOldest,
}

/// Chooses the settings of a pool; [`build`](Self::build) makes one, and
/// [`Builder::pool`](crate::Builder::pool) gives it to a cluster.
#[derive(Clone, Debug)]
#[must_use = "settings start nothing"]
pub struct PoolSettings {
    pub(super) threads: Option<RangeInclusive<usize>>,
    pub(super) queue: usize,
    pub(super) when_full: WhenFull,
    pub(super) keep_alive: Duration,
    pub(super) stop_timeout: Duration,
    pub(super) name: String,
    pub(super) cores: Option<Vec<usize>>,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            threads: None,
            queue: 1024,
            when_full: WhenFull::default(),
            keep_alive: Duration::from_secs(10),
            stop_timeout: Duration::from_secs(1),
            name: "bimodal-pool".into(),
            cores: None,
        }
    }
}

impl PoolSettings {
    /// The default settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many threads there may be, and how many of them stay when there is nothing to do. Each is started when
    /// a task finds none idle: none runs before the first task. From 1 to 512, of which 0 or more stay.
    ///
    /// Default: one that stays, and as many as there are cores; in a cluster as many as its loops leave
    /// over, see [`Builder::pool`](crate::Builder::pool).
    pub fn threads(mut self, threads: RangeInclusive<usize>) -> Self {
        self.threads = Some(threads);
        self
    }

    /// How many tasks may wait for a thread, from 1 to 16 777 216. Default 1024.
    pub fn queue(mut self, tasks: usize) -> Self {
        self.queue = tasks;
        self
    }

    /// What happens to a task when the queue is full. Default [`WhenFull::Wait`].
    pub fn when_full(mut self, policy: WhenFull) -> Self {
        self.when_full = policy;
        self
    }

    /// How long a thread that need not stay waits for another task before it ends. Default 10 s.
    pub fn keep_alive(mut self, time: Duration) -> Self {
        self.keep_alive = time;
        self
    }

    /// How long dropping the last [`Pool`] waits for tasks that run. Default 1 s. Those that take longer go
    /// on by themselves, and end with the program at the latest.
    pub fn stop_timeout(mut self, time: Duration) -> Self {
        self.stop_timeout = time;
        self
    }

    /// What the threads are called, followed by `-1`, `-2` and so on. Default `bimodal-pool`; the system
    /// shows the first 15 bytes.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The cores that the threads may use, by the system's numbers. Default: those that the thread may use which
    /// builds the pool; in a cluster of pinned threads those without a loop, if they are enough.
    pub fn cores(mut self, cores: impl IntoIterator<Item = usize>) -> Self {
        self.cores = Some(cores.into_iter().collect());
        self
    }

    /// Makes a pool. No thread is started before its first task.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Setting`], naming what is out of its limits.
    pub fn build(self) -> Result<Pool> {
        self.check()?;
        let most = self
            .threads
            .clone()
            .map_or_else(|| crate::config::Workers::Auto.resolve(), |threads| Ok(*threads.end()))?;
        let threads = self.threads.clone().unwrap_or(1..=most);
        let cores = match &self.cores {
            Some(cores) => Cores::of(cores),
            None => Cores::current(),
        };
        Ok(Pool::new(self, threads, cores))
    }

    /// Whether the settings can be.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(threads) = &self.threads {
            let (stay, most) = (*threads.start(), *threads.end());
            if !(1..=MAX_THREADS).contains(&most) || stay > most {
                return refuse(format!(
                    "the pool's threads are {stay} to {most}; there must be 1 to {MAX_THREADS}, and no more may stay"
                ));
            }
        }
        if !(1..=1 << 24).contains(&self.queue) {
            let queue = self.queue;
            return refuse(format!(
                "the pool's queue is {queue}; it must be from 1 to {}",
                1 << 24
            ));
        }
        if self.name.is_empty() || self.name.contains('\0') {
            let name = &self.name;
            return refuse(format!(
                "the pool's name is {name:?}; it must have a byte, and none that is 0"
            ));
        }
        match &self.cores {
            Some(cores) if Cores::of(cores).is_none() => refuse(format!(
                "the pool's cores are {cores:?}; it must have one at least, and each must be below {}",
                Cores::MAX
            )),
            _ => Ok(()),
        }
    }

    /// As many threads as this, unless the program chose.
    pub(crate) fn or_threads(mut self, most: usize) -> Self {
        self.threads.get_or_insert(1..=most.clamp(1, MAX_THREADS));
        self
    }

    /// These cores, unless the program chose, and if they are enough for the threads.
    pub(crate) fn or_cores(mut self, spare: Vec<usize>) -> Self {
        let enough = |threads: &RangeInclusive<usize>| (1..=spare.len()).contains(threads.end());
        if self.cores.is_none() && self.threads.as_ref().is_some_and(enough) {
            self.cores = Some(spare);
        }
        self
    }
}

fn refuse<T>(text: String) -> Result<T> {
    Err(Error::new(ErrorKind::Setting, text))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_refused() {
        let settings = PoolSettings::new;
        let reversed = RangeInclusive::new(3, 2);
        for (refused, cause) in [
            (settings().threads(0..=0), "0 to 0; there must be 1 to 512"),
            (settings().threads(reversed), "3 to 2"),
            (settings().threads(1..=513), "1 to 513"),
            (settings().queue(0), "queue is 0"),
            (settings().name(""), "name is \"\""),
            (settings().name("a\0b"), "none that is 0"),
            (settings().cores([]), "cores are []"),
            (settings().cores([1 << 20]), "below"),
        ] {
            let error = refused.build().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Setting);
            assert!(error.to_string().contains(cause), "{error}");
        }
    }

    #[test]
    fn what_the_program_chose_stays() {
        let chosen = PoolSettings::new().threads(2..=3).cores([0]);
        let settings = chosen.or_threads(8).or_cores(vec![1, 2, 3]);
        assert_eq!((settings.threads, settings.cores), (Some(2..=3), Some(vec![0])));
        let settings = PoolSettings::new().or_threads(0).or_cores(Vec::new());
        assert_eq!((settings.threads, settings.cores), (Some(1..=1), None));
        let settings = PoolSettings::new().threads(1..=2).or_cores(vec![5]);
        assert_eq!(settings.cores, None, "one core is not enough for two threads");
        assert_eq!(settings.or_cores(vec![5, 6]).cores, Some(vec![5, 6]));
    }
}
