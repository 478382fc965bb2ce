//! One body for many ends: the worker does what its data says.

use bimodal::{Cluster, Fork, Worker, WorkerHandle, event_loop};

use crate::support::trap;

/// What a worker is to do, as its data. The traps are addresses for [`trap::step_into`].
#[derive(serde::Serialize, serde::Deserialize, Clone, Debug)]
pub enum Act {
    /// Leave when asked to.
    Stay,
    /// Return this code.
    Return(i32),
    /// End itself with this code.
    Exit(i32),
    Fail,
    Panic,
    /// Panic with a value that is no text.
    PanicWithoutText,
    Abort,
    /// Disconnect itself.
    Leave,
    KillItself,
    /// When asked to leave, end with this code.
    ExitWhenAsked(i32),
    /// When asked to leave, kill itself, twice.
    KillItselfWhenAsked,
    /// When asked to leave, step into this trap first.
    LeaveThrough(String),
    /// Never leave.
    Linger,
    /// Send so many numbers, then do this.
    Talk(u64, Box<Act>),
}

/// Starts a worker of a cluster of [`obey`].
#[track_caller]
pub fn fork(cluster: &Cluster, act: Act) -> WorkerHandle {
    cluster.fork_with(Fork::new().data(act)).unwrap()
}

pub async fn obey(worker: Worker) -> Result<i32, String> {
    let mut act = worker.data::<Act>().unwrap();
    if let Act::Talk(count, then) = act {
        for number in 0..count {
            let _ = worker.send(number).unwrap();
        }
        act = *then;
    }
    perform(worker, act).await
}

async fn perform(worker: Worker, act: Act) -> Result<i32, String> {
    match act {
        Act::Return(code) => return Ok(code),
        Act::Exit(code) => worker.exit(code).await,
        Act::Fail => return Err("it was to fail".into()),
        Act::Panic => panic!("it was to panic"),
        Act::PanicWithoutText => std::panic::panic_any(7_u32),
        Act::Abort => std::process::abort(),
        Act::Leave => worker.disconnect().draining().await,
        Act::KillItself => {
            worker.kill();
            std::future::pending().await
        }
        Act::Linger => std::future::pending().await,
        Act::Stay | Act::Talk(..) => worker.draining().await,
        Act::ExitWhenAsked(code) => {
            worker.draining().await;
            worker.exit(code).await
        }
        Act::KillItselfWhenAsked => {
            worker.draining().await;
            worker.kill();
            worker.kill();
            std::future::pending().await
        }
        Act::LeaveThrough(address) => {
            worker.draining().await;
            event_loop::yield_now().await;
            trap::step_into(&address);
        }
    }
    Ok(0)
}
