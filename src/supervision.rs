//! How a supervised cluster keeps itself: the part of the settings that the supervisor decides by.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use crate::{
    builder::Builder,
    config::{Mode, Workers},
    error::{Error, ErrorKind, Result},
    supervise::{Autoscale, Health, Policy, Recycle, Restart, Rollout, Shutdown},
};

/// How [`Builder::run`] and [`Builder::supervise`] keep a cluster. Of a cluster that was
/// [launched](Builder::launch) only `shutdown` holds. What it does when, and why its defaults are what they are,
/// the chapter [Supervision](crate::docs::supervision) tells.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Supervision {
    /// How workers that failed are replaced.
    pub restart: Restart,
    /// How long a worker may take to get ready; any time if absent.
    pub boot_timeout: Option<Duration>,
    /// When a worker counts as hung; never if absent.
    pub health: Option<Health>,
    /// When a worker that works is replaced all the same.
    pub recycle: Recycle,
    /// How the number of workers follows the load; not at all if absent.
    pub autoscale: Option<Autoscale>,
    /// How a reload goes through the workers.
    pub rollout: Rollout,
    /// The phases of a stop.
    pub shutdown: Shutdown,
}

impl Default for Supervision {
    fn default() -> Self {
        Self {
            restart: Restart::default(),
            boot_timeout: None,
            health: Some(Health::default()),
            recycle: Recycle::default(),
            autoscale: None,
            rollout: Rollout::default(),
            shutdown: Shutdown::default(),
        }
    }
}

impl Builder {
    /// How workers that failed are replaced. Default [`Restart::default`]: at once the first time, then after
    /// 100 ms that double up to 10 s, for ever.
    pub fn restart(self, restart: Restart) -> Self {
        self.supervision(|all| all.restart = restart)
    }

    /// How long a worker may take to get ready, that is to [listen](crate::Worker::listen) or to say
    /// [`ready`](crate::Worker::ready). One that does not is ended and replaced. Default: any time, as not
    /// every worker listens; but 60 s for one that is to take another's place.
    pub fn boot_timeout(self, time: impl Into<Option<Duration>>) -> Self {
        let time = time.into();
        self.supervision(|all| all.boot_timeout = time)
    }

    /// When a worker counts as hung, and how it is ended. Default [`Health::default`]: after 30 s without
    /// a turn of its loop. With `None`, never.
    pub fn health(self, health: impl Into<Option<Health>>) -> Self {
        let health = health.into();
        self.supervision(|all| all.health = health)
    }

    /// When a worker that works is replaced all the same. Default: never. A bound on memory is refused in
    /// [`Mode::Thread`], where a worker has none of its own.
    pub fn recycle(self, recycle: Recycle) -> Self {
        self.supervision(|all| all.recycle = recycle)
    }

    /// Lets the number of workers follow the load; [`workers`](Self::workers) is where it begins.
    /// Default: the number stays as it is.
    pub fn autoscale(self, autoscale: impl Into<Option<Autoscale>>) -> Self {
        let autoscale = autoscale.into();
        self.supervision(|all| all.autoscale = autoscale)
    }

    /// How a [reload](crate::Cluster::reload) goes through the workers. Default [`Rollout::default`]: one at a
    /// time, the new one first.
    pub fn rollout(self, rollout: Rollout) -> Self {
        self.supervision(|all| all.rollout = rollout)
    }

    /// The phases of a stop, and of every worker that is retired. Default [`Shutdown::default`].
    pub fn shutdown(self, shutdown: Shutdown) -> Self {
        self.supervision(|all| all.shutdown = shutdown)
    }

    /// How long workers may drain before they are told to end: the `drain` of [`shutdown`](Self::shutdown).
    /// Default 10 s. Whoever does not end then within its `close` is killed.
    pub fn shutdown_timeout(self, time: Duration) -> Self {
        self.supervision(|all| all.shutdown.drain = time)
    }
}

impl Supervision {
    /// What the supervisor goes by.
    pub(crate) fn policy(&self, workers: usize) -> Policy {
        Policy {
            workers,
            restart: Some(self.restart.clone()),
            boot_timeout: self.boot_timeout,
            health: self.health,
            recycle: self.recycle.clone(),
            scale: self.autoscale.clone(),
            rollout: self.rollout,
            shutdown: self.shutdown,
            seed: RandomState::new().hash_one(0),
        }
    }

    /// What a cluster goes by whose program decides itself.
    pub(crate) fn unsupervised(&self) -> Policy {
        Policy { shutdown: self.shutdown, ..Policy::default() }
    }

    pub(crate) fn check(&self, mode: Mode) -> Result<()> {
        self.check_restart()?;
        self.check_times()?;
        self.check_recycle(mode)?;
        self.check_numbers()
    }

    fn check_restart(&self) -> Result<()> {
        let Restart { first_delay, longest_delay, jitter, attempts, starts_at_once, .. } =
            self.restart;
        share("restart.jitter", jitter)?;
        at_least_one("restart.attempts", attempts as usize)?;
        at_least_one("restart.starts_at_once", starts_at_once)?;
        if longest_delay < first_delay {
            return refuse(format!(
                "restart.longest_delay is {longest_delay:?}; it must not be below first_delay, which is {first_delay:?}"
            ));
        }
        for intensity in self.restart.per_worker.iter().chain(&self.restart.per_cluster) {
            positive("restart: `within` of an intensity", intensity.within)?;
        }
        Ok(())
    }

    fn check_times(&self) -> Result<()> {
        if let Some(health) = &self.health {
            if health.deadline < Health::SHORTEST {
                return refuse(format!(
                    "health.deadline is {:?}; it must be at least {:?}",
                    health.deadline,
                    Health::SHORTEST
                ));
            }
            positive("health.patience", health.patience)?;
        }
        self.boot_timeout.map_or(Ok(()), |time| positive("boot_timeout", time))?;
        positive("shutdown.kill", self.shutdown.kill)
    }

    fn check_recycle(&self, mode: Mode) -> Result<()> {
        let Recycle { requests, age, memory, jitter } = self.recycle;
        share("recycle.jitter", jitter)?;
        if requests == Some(0) || memory == Some(0) {
            return refuse("recycle is by 0 requests or bytes; it must be at least 1".into());
        }
        age.map_or(Ok(()), |age| positive("recycle.age", age))?;
        if mode == Mode::Thread && memory.is_some() {
            return refuse(
                "`recycle.memory` cannot be set in thread mode: all threads of a process share its memory, and a new one would take no less; leave it out, or use process mode"
                    .into(),
            );
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<()> {
        let Rollout { surge, unavailable } = self.rollout;
        if surge + unavailable == 0 {
            return refuse(
                "rollout has neither `surge` nor `unavailable`; one must be at least 1, or no worker could be replaced".into(),
            );
        }
        let Some(Autoscale { min, max, target, .. }) = self.autoscale else { return Ok(()) };
        if min == 0 || max < min || max > Workers::MAX {
            return refuse(format!(
                "autoscale is between {min} and {max}; both must be from 1 to {}, the second not below the first",
                Workers::MAX
            ));
        }
        if !(target > 0.0 && target <= 1.0) {
            return refuse(format!(
                "autoscale.target is {target}; it must be above 0 and at most 1"
            ));
        }
        Ok(())
    }
}

fn share(setting: &str, value: f64) -> Result<()> {
    if (0.0..=1.0).contains(&value) {
        return Ok(());
    }
    refuse(format!("{setting} is {value}; it must be from 0 to 1"))
}

fn at_least_one(setting: &str, value: usize) -> Result<()> {
    if value > 0 { Ok(()) } else { refuse(format!("{setting} is 0; it must be at least 1")) }
}

fn positive(setting: &str, value: Duration) -> Result<()> {
    if value.is_zero() {
        return refuse(format!("{setting} is 0; it must be a time above 0"));
    }
    Ok(())
}

fn refuse(text: String) -> Result<()> {
    Err(Error::new(ErrorKind::Setting, text))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::supervise::Intensity;

    fn refused(change: impl FnOnce(&mut Supervision)) -> String {
        let mut supervision = Supervision::default();
        change(&mut supervision);
        let error = supervision.check(Mode::Thread).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Setting);
        error.to_string()
    }

    #[test]
    fn the_defaults_hold_in_both_modes() {
        for mode in [Mode::Process, Mode::Thread] {
            Supervision::default().check(mode).unwrap();
        }
    }

    #[test]
    fn what_cannot_hold_is_refused_by_name() {
        let zero = Duration::ZERO;
        let none_ever = Intensity { failures: 3, within: zero };
        let texts = [
            ("restart.jitter", refused(|all| all.restart.jitter = f64::NAN)),
            ("restart.attempts", refused(|all| all.restart.attempts = 0)),
            ("restart.starts_at_once", refused(|all| all.restart.starts_at_once = 0)),
            ("restart.longest_delay", refused(|all| all.restart.longest_delay = zero)),
            ("within", refused(|all| all.restart.per_cluster = Some(none_ever))),
            ("health.deadline", refused(|all| all.health.as_mut().unwrap().deadline = zero)),
            ("health.patience", refused(|all| all.health.as_mut().unwrap().patience = zero)),
            ("boot_timeout", refused(|all| all.boot_timeout = Some(zero))),
            ("shutdown.kill", refused(|all| all.shutdown.kill = zero)),
            ("recycle.jitter", refused(|all| all.recycle.jitter = 1.5)),
            ("recycle", refused(|all| all.recycle.requests = Some(0))),
            ("recycle.age", refused(|all| all.recycle.age = Some(zero))),
            ("recycle.memory", refused(|all| all.recycle.memory = Some(1))),
            ("rollout", refused(|all| all.rollout.surge = 0)),
            ("autoscale", refused(|all| all.autoscale = Some(Autoscale::between(0, 1)))),
            ("autoscale", refused(|all| all.autoscale = Some(Autoscale::between(3, 2)))),
        ];
        for (setting, text) in texts {
            assert!(text.contains(setting), "{setting}: {text}");
        }
    }
}
