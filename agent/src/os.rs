//! The one place that speaks with the Linux kernel: processes, signals, cgroups,
//! clocks, unix sockets and durable files. It decides nothing about runs and must
//! never resolve names or users (the agent is static: no NSS).
#![cfg(target_os = "linux")]

mod bounded;
mod catch;
mod cgroup;
mod changes;
mod clock;
mod event;
mod files;
mod kernel_log;
mod limits;
mod lines;
mod memory;
mod nice;
mod oom;
mod renames;
mod session;
mod stacks;
mod table;
mod terminal;
mod tree;
mod usage;
mod writers;

pub use bounded::{Ended, Kept, run_bounded};
pub use catch::{Asking, ask_to_save};
pub use cgroup::Cgroup;
pub use changes::{Changes, TreeChanges};
pub use clock::{boot_id, boottime_ms, unix_ms};
pub use event::{Signals, grow_pipe, set_nonblocking, wait_readable};
pub use files::{
    FileLock, append_nofollow, create_durable_once, free_disk, make_private_dir, open_nofollow, read_bounded,
    sync_dir, sync_filesystem, write_durable, write_whole,
};
pub use kernel_log::KernelLog;
pub use limits::{own_ceilings, with_open_files};
pub use lines::{LineRequest, LineServer, ask, connect, listen};
pub use memory::{clear_memory, take_from_memory, write_in_memory};
pub use nice::{set_session_nice, set_thread_nice};
pub use oom::OomCounters;
pub use renames::Renames;
pub use session::{
    adopt_orphans, lead_session, max_child_rss_bytes, no_core_dumps, prefer_as_oom_victim, reap_orphans,
};
pub use stacks::{Stack, Thread, find_in_path, py_spy, stacks};
pub use table::{Process, ProcessRef, marked_processes, parent, process, processes, start_time};
pub use terminal::Terminal;
pub use tree::{Tree, send_continue, send_kill, send_term};
pub use usage::{Usage, disk_room, is_in_some_environment, own_rss_bytes, usage};
pub use writers::{Writer, Writers, writers, writers_of};
