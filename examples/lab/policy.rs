//! How the lab's cluster is supervised, as options of the command line. Without them the defaults hold.

use std::{str::FromStr, time::Duration};

use bimodal::{Autoscale, Builder, Health, Recycle, Restart, Shutdown};
use clap::Args;

/// The options; what is left out keeps its default.
#[derive(Args)]
#[command(next_help_heading = "Supervision")]
pub(crate) struct Policy {
    /// How long a worker may give no sign of life
    #[arg(long, value_name = "MS", value_parser = millis)]
    health_deadline_ms: Option<Duration>,
    /// How long each step against a worker that hangs may take
    #[arg(long, value_name = "MS", value_parser = millis)]
    health_patience_ms: Option<Duration>,
    /// The delay before the second restart in a row; it doubles up to 16 times itself
    #[arg(long, value_name = "MS", value_parser = millis)]
    restart_delay_ms: Option<Duration>,
    /// Replaces a worker after so many requests
    #[arg(long, value_name = "N")]
    recycle_requests: Option<u64>,
    /// Replaces a worker process that takes so much memory
    #[arg(long, value_name = "MIB")]
    recycle_memory: Option<u64>,
    /// Replaces a worker of this age
    #[arg(long, value_name = "MS", value_parser = millis)]
    recycle_age_ms: Option<Duration>,
    /// Lets the number of workers follow the load
    #[arg(long, value_name = "MIN..MAX")]
    autoscale: Option<Bounds>,
    /// How long it must be too busy before a worker is added; ten times as long, too idle
    #[arg(long, value_name = "MS", value_parser = millis, requires = "autoscale")]
    autoscale_after_ms: Option<Duration>,
    /// How long a stop is announced, by `/ready`, before it begins
    #[arg(long, value_name = "MS", value_parser = millis)]
    shutdown_delay_ms: Option<Duration>,
    /// How long workers may drain
    #[arg(long, value_name = "MS", value_parser = millis)]
    shutdown_drain_ms: Option<Duration>,
}

impl Policy {
    pub(crate) fn apply(&self, mut builder: Builder) -> Builder {
        if let Some(scale) = self.autoscale {
            builder = builder.autoscale(self.autoscale(scale));
        }
        builder
            .health(self.health())
            .restart(self.restart())
            .recycle(self.recycle())
            .shutdown(self.shutdown())
    }

    fn health(&self) -> Health {
        let Health { deadline, patience } = Health::default();
        Health {
            deadline: self.health_deadline_ms.unwrap_or(deadline),
            patience: self.health_patience_ms.unwrap_or(patience),
        }
    }

    fn restart(&self) -> Restart {
        let mut restart = Restart::default();
        if let Some(first_delay) = self.restart_delay_ms {
            restart.first_delay = first_delay;
            restart.longest_delay = first_delay.saturating_mul(16);
        }
        restart
    }

    fn recycle(&self) -> Recycle {
        Recycle {
            requests: self.recycle_requests,
            memory: self.recycle_memory.map(|mib| mib.saturating_mul(1 << 20)),
            age: self.recycle_age_ms,
            ..Recycle::default()
        }
    }

    fn autoscale(&self, Bounds { min, max }: Bounds) -> Autoscale {
        let mut rule = Autoscale::between(min, max);
        if let Some(after) = self.autoscale_after_ms {
            rule.up_after = after;
            rule.down_after = after.saturating_mul(10);
        }
        rule
    }

    fn shutdown(&self) -> Shutdown {
        let Shutdown { delay, drain, .. } = Shutdown::default();
        Shutdown {
            delay: self.shutdown_delay_ms.unwrap_or(delay),
            drain: self.shutdown_drain_ms.unwrap_or(drain),
            ..Shutdown::default()
        }
    }
}

fn millis(text: &str) -> Result<Duration, String> {
    let count: u64 = text.parse().map_err(|_| "it must be a number of milliseconds".to_owned())?;
    Ok(Duration::from_millis(count))
}

/// The fewest and the most workers, as `MIN..MAX`.
#[derive(Clone, Copy)]
struct Bounds {
    min: usize,
    max: usize,
}

impl FromStr for Bounds {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SHAPE: &str = "it must be MIN..MAX, two numbers of workers";
        let (min, max) = text.split_once("..").ok_or(SHAPE)?;
        let number = |text: &str| text.parse().map_err(|_| SHAPE);
        Ok(Self { min: number(min)?, max: number(max)? })
    }
}
