//! What only worker processes can do or suffer: signals, markers, descriptors, hostile workers.
//!
//! Most tests start a server as a program of its own ([`serve`]) and look at it from outside.

pub mod hostile;
mod scarce;
mod settings;
mod signals;
mod start;
mod streams;

use bimodal::Mode;

use crate::{
    serve,
    support::{Scenario, only},
};

/// Everything here needs a process per worker.
const PROCESS: &[Mode] = &[Mode::Process];

pub const SCENARIOS: &[Scenario] = &[
    only(PROCESS, "killed_primary_leaves_no_worker", signals::killed_primary_leaves_no_worker)
        .proves(&["LIFE-31", "LIFE-32"]),
    only(PROCESS, "sigterm_drains_the_cluster", signals::sigterm_drains_the_cluster)
        .proves(&["SHUT-12"]),
    only(PROCESS, "second_signal_ends_at_once", signals::second_signal_ends_at_once),
    only(PROCESS, "worker_told_to_leave_is_replaced", signals::worker_told_to_leave_is_replaced),
    only(PROCESS, "sigint_to_a_worker_is_ignored", signals::sigint_to_a_worker_is_ignored),
    only(PROCESS, "stopped_worker_holds_its_window", signals::stopped_worker_holds_its_window)
        .proves(&["LST-30"]),
    only(PROCESS, "worker_killed_before_adopting", signals::worker_killed_before_adopting)
        .proves(&["LST-35"]),
    only(PROCESS, "worker_killed_with_a_backlog", signals::worker_killed_with_a_backlog),
    only(PROCESS, "foreign_markers_are_ignored", start::foreign_markers_are_ignored)
        .proves(&["DET-02"]),
    only(PROCESS, "marker_is_gone_in_the_worker", start::marker_is_gone_in_the_worker)
        .proves(&["DET-03", "DET-04"]),
    only(PROCESS, "program_that_ends_early", start::program_that_ends_early).proves(&["FORK-21"]),
    only(PROCESS, "program_file_replaced", start::program_file_replaced),
    only(PROCESS, "program_file_deleted", start::program_file_deleted),
    only(PROCESS, "descriptors_of_a_worker", settings::descriptors_of_a_worker)
        .proves(&["DET-04", "LST-54"]),
    only(PROCESS, "environment_and_directory", settings::environment_and_directory),
    only(PROCESS, "user_and_group", settings::user_and_group).proves(&["FORK-25"]),
    only(PROCESS, "closed_stdio", settings::closed_stdio),
    only(PROCESS, "primary_without_descriptors", scarce::primary_without_descriptors),
    only(PROCESS, "worker_without_descriptors", scarce::worker_without_descriptors),
    only(PROCESS, "all_workers_without_descriptors", scarce::all_workers_without_descriptors),
    only(
        PROCESS,
        "accepting_worker_without_descriptors",
        scarce::accepting_worker_without_descriptors,
    ),
    only(PROCESS, "replacement_without_descriptors", scarce::replacement_without_descriptors)
        .proves(&["THR-40"]),
    only(PROCESS, "start_without_descriptors", scarce::start_without_descriptors),
    only(PROCESS, "replacement_without_processes", scarce::replacement_without_processes)
        .proves(&["THR-40"]),
    only(PROCESS, "hostile_worker_is_killed", hostile::hostile_worker_is_killed)
        .proves(&["ERR-07"]),
    only(PROCESS, "worker_that_sends_descriptors", hostile::worker_that_sends_descriptors)
        .proves(&["ERR-07"]),
    only(
        PROCESS,
        "worker_that_finishes_again_and_again",
        hostile::worker_that_finishes_again_and_again,
    ),
    only(PROCESS, "worker_that_hangs_up", hostile::worker_that_hangs_up)
        .proves(&["LIFE-09", "LIFE-34", "MSG-07", "EVT-28"]),
    only(
        PROCESS,
        "worker_without_a_channel_is_replaced",
        hostile::worker_without_a_channel_is_replaced,
    ),
    only(PROCESS, "stranger_with_the_channel", hostile::stranger_with_the_channel)
        .proves(&["EVT-20", "LIFE-40"]),
    only(PROCESS, "silent_workers_have_streams", streams::silent_workers_have_streams)
        .proves(&["FORK-22"]),
    only(PROCESS, "other_workers_share_the_streams", streams::other_workers_share_the_streams)
        .proves(&["FORK-22", "FORK-23"]),
    only(PROCESS, "a_further_pipe", streams::a_further_pipe).proves(&["FORK-24"]),
    only(PROCESS, "working_directory", streams::working_directory).proves(&["FORK-19"]),
    only(PROCESS, "process_groups", streams::process_groups).proves(&["FORK-31"]),
    only(PROCESS, "another_program", streams::another_program),
    only(PROCESS, "the_end_of_the_primary_ends_all", streams::the_end_of_the_primary_ends_all)
        .proves(&["LIFE-31", "LIFE-32", "LIFE-33", "THR-15"]),
];

pub const PROGRAMS: &[Scenario] = &[
    only(PROCESS, "ordinary", serve::ordinary),
    only(PROCESS, "early", start::early),
    only(PROCESS, "primary_to_end", streams::primary_to_end),
];
