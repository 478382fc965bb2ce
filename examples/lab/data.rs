//! Data beside the program's own, so that what it costs per worker can be measured: once for all of them in a region
//! (`--data-mib`), or once in each (`--private-mib`). Every page is written before the worker listens, so that
//! it is really there.

use std::hint::black_box;

use bimodal::{Builder, Result, Worker};
use clap::Args;

/// The name of the region.
const REGION: &str = "data";

/// The longest region that a cluster takes, and as much for each worker.
const MAX_MIB: u64 = 1024;

/// What Linux takes from the system at a time, at the least.
const PAGE: usize = 4096;

/// How much; nothing without them.
#[derive(Args, Clone, Copy)]
#[command(next_help_heading = "Data")]
pub(crate) struct Data {
    /// Memory that all workers share, written by each of them
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=MAX_MIB))]
    data_mib: Option<u64>,
    /// Memory of its own that each worker takes and writes
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=MAX_MIB))]
    private_mib: Option<u64>,
}

impl Data {
    pub(crate) fn declare(self, builder: Builder) -> Builder {
        match self.data_mib {
            Some(mib) => builder.region(REGION, bytes(mib)),
            None => builder,
        }
    }

    /// Takes what a worker is to have; it keeps its own as long as the returned value lives.
    pub(crate) fn take(self, worker: &Worker) -> Result<Vec<u8>> {
        if self.data_mib.is_some() {
            let view = worker.region(REGION)?.view::<u64>();
            (0..view.len())
                .step_by(PAGE / size_of::<u64>())
                .try_for_each(|at| view.store(at, 1))?;
        }
        // Not of zeros: those would come from the system untouched.
        Ok(black_box(vec![1; bytes(self.private_mib.unwrap_or(0))]))
    }
}

fn bytes(mib: u64) -> usize {
    usize::try_from(mib << 20).unwrap_or(usize::MAX)
}
