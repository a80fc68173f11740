//! What an ending says of the machine of the next try: the same kind, another
//! host, or a larger one. Pure.

use super::Ending;
use crate::cause::{Cause, Confidence};
use crate::spec::MachineSpec;

/// How often a larger machine is asked for in one run: what does not fit then
/// is not a matter of size.
pub const ENLARGED_MOST: u32 = 2;

const GB: u64 = 1_000_000_000;
/// What is doubled where no size was asked for.
const MEMORY_BASE: u64 = 16 * GB;
const GPU_MEMORY_BASE: u64 = 12 * GB;
/// Nothing is asked for that nobody rents out.
const MOST: u64 = 16_000 * GB;

/// Where the next try belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Anywhere.
    None,
    /// Not on that host.
    OtherHost,
    /// On a machine with more memory.
    Memory,
    /// On a machine whose GPUs have more memory.
    GpuMemory,
    /// On a machine with a larger disk.
    Disk,
}

impl Remedy {
    /// Whether the next machine is to be larger.
    #[must_use]
    pub fn is_larger(self) -> bool {
        matches!(self, Self::Memory | Self::GpuMemory | Self::Disk)
    }
}

/// What one ending asks for.
#[must_use]
pub fn remedy(ending: &Ending) -> Remedy {
    let Some((cause, sure)) = ending.cause else { return Remedy::None };
    match cause {
        Cause::OutOfMemory if sure >= Confidence::Likely => Remedy::Memory,
        Cause::GpuOutOfMemory if sure >= Confidence::Likely => Remedy::GpuMemory,
        Cause::DiskFull if sure >= Confidence::Likely => Remedy::Disk,
        Cause::GpuFault if sure == Confidence::Certain => Remedy::OtherHost,
        Cause::NeverJoined | Cause::ProviderLying => Remedy::OtherHost,
        // A dead host and a preemption without notice look the same: neither
        // is the host's fault for certain.
        _ => Remedy::None,
    }
}

/// The size to ask for next, and that in words; `None` where there is none.
#[must_use]
pub fn enlarged(spec: &MachineSpec, remedy: Remedy) -> Option<(MachineSpec, String)> {
    let twice = |now: u64, base: u64| now.max(base).saturating_mul(2).min(MOST);
    let mut next = spec.clone();
    let (what, size) = match remedy {
        Remedy::Memory => {
            next.memory_bytes = twice(spec.memory_bytes, MEMORY_BASE);
            ("memory", next.memory_bytes)
        }
        Remedy::GpuMemory => {
            next.gpu_memory_bytes = twice(spec.gpu_memory_bytes, GPU_MEMORY_BASE);
            ("GPU memory", next.gpu_memory_bytes)
        }
        Remedy::Disk => {
            next.disk_bytes = twice(spec.disk_bytes, 10 * GB);
            ("disk", next.disk_bytes)
        }
        Remedy::None | Remedy::OtherHost => return None,
    };
    (next != *spec).then(|| (next, format!("{} GB of {what} or more", size / GB)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    fn ended(cause: Cause, sure: Confidence) -> Ending {
        let json = serde_json::json!({
            "exit": Exit::Code { code: 1 }, "fingerprint": "", "step": null, "durable_step": null, "started": true,
            "at_ms": 0, "cause": (cause, sure),
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn each_cause_leads_to_the_machine_that_helps() {
        use Confidence::{Certain, Likely, Possible};
        for (cause, sure, wanted) in [
            (Cause::OutOfMemory, Likely, Remedy::Memory),
            (Cause::OutOfMemory, Possible, Remedy::None),
            (Cause::GpuOutOfMemory, Certain, Remedy::GpuMemory),
            (Cause::DiskFull, Certain, Remedy::Disk),
            (Cause::GpuFault, Certain, Remedy::OtherHost),
            (Cause::GpuFault, Possible, Remedy::None),
            (Cause::NeverJoined, Certain, Remedy::OtherHost),
            (Cause::Preempted, Certain, Remedy::None),
            (Cause::HostDead, Likely, Remedy::None),
            (Cause::UserError, Certain, Remedy::None),
        ] {
            assert_eq!(remedy(&ended(cause, sure)), wanted, "{cause:?} {sure:?}");
        }
    }

    /// From what a program and a kernel said to what is done next.
    #[test]
    fn real_failures_lead_to_what_helps() {
        use crate::cause::{Evidence, judge};
        use crate::retry::{Decision, Means, after};
        let kernel = "NVRM: Xid (PCI:0000:44:00): 79, pid='<unknown>', GPU has fallen off the bus.";
        let code = |code| Exit::Code { code };
        let killed = Exit::Signal { signal: 9, core: false };
        let nccl =
            "[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=5, OpType=ALLREDUCE)";
        for (exit, stderr, kernel, counters, wanted, over) in [
            (
                code(1),
                "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB",
                "",
                "",
                Remedy::GpuMemory,
                false,
            ),
            (code(1), nccl, "", "", Remedy::None, false),
            (code(1), "RuntimeError: CUDA error: unknown error", kernel, "", Remedy::OtherHost, false),
            (code(1), "ModuleNotFoundError: No module named 'transformers'", "", "", Remedy::None, true),
            (code(2), "train.py: error: unrecognized arguments: --lr", "", "", Remedy::None, true),
            (
                code(1),
                "OSError: [Errno 28] No space left on device: '/ckpt/step-400.pt'",
                "",
                "",
                Remedy::Disk,
                false,
            ),
            (killed.clone(), "step 3", "", "", Remedy::None, false),
            (killed, "step 3", "", "certain: memory.events counts 1 more oom_kill", Remedy::Memory, false),
        ] {
            let verdict = judge(&Evidence {
                exit: Some(exit.clone()),
                started: true,
                stderr: vec![stderr.to_owned()],
                last_error_line: stderr.to_owned(),
                kernel: vec![kernel.to_owned()],
                out_of_memory: counters.to_owned(),
                ..Evidence::default()
            });
            let end = Ending { exit: Some(exit), ..ended(verdict.cause, verdict.confidence) };
            assert_eq!(remedy(&end), wanted, "{stderr}: {verdict:#?}");
            let means = Means { chooses: true, ..Means::default() };
            let decision = after(&[end], &crate::spec::RetrySpec::default(), &means);
            assert_eq!(matches!(decision, Decision::GiveUp(_)), over, "{stderr}: {decision:?}");
            assert!(!verdict.because.is_empty(), "nothing is shown for it: {verdict:#?}");
        }
    }

    #[test]
    fn a_larger_machine_has_twice_as_much_and_nothing_else_changes() {
        let spec = MachineSpec { disk_bytes: 20 * GB, ..MachineSpec::default() };
        let (disk, said) = enlarged(&spec, Remedy::Disk).unwrap();
        assert_eq!((disk.disk_bytes, said.as_str()), (40 * GB, "40 GB of disk or more"));
        assert_eq!(MachineSpec { disk_bytes: spec.disk_bytes, ..disk }, spec);
        let (memory, _) = enlarged(&spec, Remedy::Memory).unwrap();
        assert_eq!(enlarged(&memory, Remedy::Memory).unwrap().0.memory_bytes, 64 * GB);
        assert_eq!(enlarged(&MachineSpec { disk_bytes: MOST, ..spec.clone() }, Remedy::Disk), None);
        assert_eq!(enlarged(&spec, Remedy::OtherHost), None);
    }
}
