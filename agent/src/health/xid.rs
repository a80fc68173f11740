//! The NVIDIA driver's errors in the kernel's log, and what each of them asks
//! for. Pure. After NVIDIA's catalogue of Xid errors (Ampere and newer,
//! docs.nvidia.com/deploy/xid-errors). Never takes a line that another program
//! wrote into the log for the kernel's own.

/// What an Xid asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Remedy {
    /// Information, or not known to matter.
    None,
    /// The program is at fault or can simply be started again.
    RestartProgram,
    /// The GPU should be reset when it is free; it can still be used.
    ResetGpu,
    /// No program gets results from this GPU before somebody resets it, restarts
    /// the machine or exchanges it: the work goes to another machine.
    LeaveMachine,
}

/// One error of a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Xid {
    /// PCI address as in `0000:65:00`, domain and function left as printed.
    pub(super) pci: String,
    pub(super) number: u32,
    pub(super) remedy: Remedy,
    /// The driver's own words, at most 200 characters.
    pub(super) text: String,
}

/// Longest message that is kept of one error.
const TEXT_MAX: usize = 200;

/// One record of `/dev/kmsg`: `priority,sequence,microseconds,flags;message`.
/// The kernel marks what programs write into its log with another facility.
pub(super) fn from_record(record: &str) -> Option<Xid> {
    let (head, message) = record.split_once(';')?;
    let priority: u32 = head.split(',').next()?.parse().ok()?;
    (priority >> 3 == 0).then(|| from_message(message))?
}

/// `NVRM: Xid (PCI:0000:65:00): 79, pid=1234, name=python, GPU has fallen off the bus.`
fn from_message(message: &str) -> Option<Xid> {
    let rest = message.split_once("NVRM: Xid (")?.1;
    let (place, rest) = rest.split_once("):")?;
    let rest = rest.trim_start();
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let number: u32 = rest.get(..digits)?.parse().ok().filter(|n| (1..10_000).contains(n))?;
    let pci = place.trim_start_matches("PCI:");
    let is_address =
        !pci.is_empty() && pci.len() <= 20 && pci.chars().all(|c| c.is_ascii_hexdigit() || ":.".contains(c));
    if !is_address {
        return None;
    }
    let words = rest.get(digits..)?.trim_start_matches([',', ' ']);
    let text = words.chars().filter(|c| !c.is_control()).take(TEXT_MAX).collect();
    Some(Xid { pci: pci.to_ascii_lowercase(), number, remedy: remedy(number, words), text })
}

fn remedy(number: u32, words: &str) -> Remedy {
    match number {
        // The program's own faults: bad addresses, killed programs, engines
        // that only this program used.
        8
        | 11
        | 13
        | 25
        | 31
        | 32
        | 39..=41
        | 43
        | 45
        | 60
        | 68..=72
        | 75..=77
        | 80
        | 82..=86
        | 88
        | 89
        | 96..=105
        | 126..=135
        | 139 => Remedy::RestartProgram,
        // Memory that the GPU repaired or set aside, timeouts that a program can cause.
        46 | 63 | 92 | 109 | 136 | 155 | 156 => Remedy::ResetGpu,
        // 48, 64, 94, 95, 140, 171, 172: memory errors that were not corrected;
        // 62, 119, 120, 169: its controllers do not answer; 74, 144..=150: NVLink;
        // 79: off the bus; 110, 143, 158, 167: neither starts nor ends.
        48 | 62 | 64 | 74 | 79 | 94 | 95 | 110 | 119 | 120 | 140 | 143 | 158 | 167 | 169 | 171 | 172 => {
            Remedy::LeaveMachine
        }
        // The driver's own summary of what has to be done.
        154 if words.contains("Node Reboot Required") || words.contains("GPU Reset Required") => {
            Remedy::LeaveMachine
        }
        154 if words.contains("Drain and Reset") => Remedy::ResetGpu,
        _ => Remedy::None,
    }
}

/// Whether two PCI addresses name the same device: `0000:65:00` in the log,
/// `00000000:65:00.0` from the GPU tool.
pub(super) fn is_same_device(a: &str, b: &str) -> bool {
    fn parts(address: &str) -> Option<(u64, u64, u64)> {
        let address = address.split('.').next()?;
        let mut fields = address.rsplit(':').map(|f| u64::from_str_radix(f, 16).ok());
        let (device, bus) = (fields.next()??, fields.next()??);
        Some((fields.next().unwrap_or(Some(0))?, bus, device))
    }
    parts(a).is_some_and(|p| Some(p) == parts(b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FALLEN: &str = "4,1234,98765432,-;NVRM: Xid (PCI:0000:65:00): 79, pid=2719, name=python3, GPU has fallen off the bus.";

    #[test]
    fn a_line_of_the_driver_is_an_xid() {
        let xid = from_record(FALLEN).unwrap();
        assert_eq!((xid.pci.as_str(), xid.number, xid.remedy), ("0000:65:00", 79, Remedy::LeaveMachine));
        assert_eq!(xid.text, "pid=2719, name=python3, GPU has fallen off the bus.");
        let old = "6,1,2,-;NVRM: Xid (0000:01:00): 31, Ch 0000000b, engmask 00000120, intr 10000000";
        assert_eq!(from_record(old).unwrap().remedy, Remedy::RestartProgram);
        let quoted = "4,1,2,c;NVRM: Xid (PCI:0000:CB:00): 13, pid='<unknown>', name=<unknown>, Graphics SM Warp Exception";
        let xid = from_record(quoted).unwrap();
        assert_eq!((xid.pci.as_str(), xid.number), ("0000:cb:00", 13));
    }

    #[test]
    fn what_a_program_writes_into_the_log_is_no_xid() {
        assert_eq!(from_record(&FALLEN.replacen('4', "12", 1)), None);
        assert_eq!(from_record("4,1,2,-;usb 1-1: new device"), None);
        assert_eq!(from_record("4,1,2,-;NVRM: Xid (PCI:0000:65:00): , pid=1"), None);
        assert_eq!(from_record("4,1,2,-;NVRM: Xid (PCI:../../x): 79, pid=1"), None);
        assert_eq!(from_record("4,1,2,-;NVRM: Xid (PCI:0000:65:00): 99999999999, x"), None);
    }

    #[test]
    fn the_catalogue_decides() {
        let of = |n| remedy(n, "");
        for n in [13, 31, 43, 45, 68, 69] {
            assert_eq!(of(n), Remedy::RestartProgram, "{n}");
        }
        for n in [46, 63, 92, 109] {
            assert_eq!(of(n), Remedy::ResetGpu, "{n}");
        }
        for n in [48, 62, 64, 74, 79, 94, 95, 119, 120, 140] {
            assert_eq!(of(n), Remedy::LeaveMachine, "{n}");
        }
        assert_eq!(of(106), Remedy::None);
        assert_eq!(of(9999), Remedy::None);
        let action = |what| format!("GPU recovery action changed from 0x0 (None) to 0x2 ({what})");
        assert_eq!(remedy(154, &action("Node Reboot Required")), Remedy::LeaveMachine);
        assert_eq!(remedy(154, &action("Drain and Reset")), Remedy::ResetGpu);
        assert_eq!(remedy(154, &action("None")), Remedy::None);
    }

    #[test]
    fn addresses_of_the_log_and_of_the_tool_meet() {
        assert!(is_same_device("0000:65:00", "00000000:65:00.0"));
        assert!(is_same_device("65:00", "00000000:65:00.0"));
        assert!(is_same_device("0001:0a:00", "00000001:0A:00.0"));
        assert!(!is_same_device("0000:66:00", "00000000:65:00.0"));
        assert!(!is_same_device("", ""));
        assert!(!is_same_device("x:y:z", "x:y:z"));
    }

    proptest! {
        #[test]
        fn no_log_line_makes_it_fail(line in "(?s).{0,300}", head in "[0-9]{0,12}", pci in "[0-9a-fA-F:.]{0,24}", n in any::<u64>()) {
            let _ = from_record(&line);
            if let Some(xid) = from_record(&format!("{head},1,2;NVRM: Xid (PCI:{pci}): {n}, {line}")) {
                prop_assert!(xid.text.chars().count() <= TEXT_MAX && !xid.text.contains('\n'));
                let _ = is_same_device(&xid.pci, &pci);
            }
        }
    }
}
