//! What a host answered, read from its words. A host may say anything: what is
//! not exactly as a script says it is no answer, and never half of one.

use artifacts::store::trouble::foreign;

/// More slots than a host can have.
const MAX_SLOTS: usize = 1000;
/// The longest text of a claim's field.
const MAX_FIELD: usize = 200;

/// Who has a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    /// The installation.
    pub(super) hub: String,
    /// The machine.
    pub(super) machine: String,
    /// Its label.
    pub(super) label: String,
    /// The host it was made on, as that calls itself.
    pub(super) node: String,
    /// Its GPUs, where it has not all.
    pub(super) gpus: Option<String>,
}

/// How far along the machine of a slot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Claimed; no guard has started.
    Booting,
    /// Its guard or its agent runs.
    Up,
    /// They ran once.
    Ended,
    /// The claim makes no sense.
    Unclear,
}

/// A slot that is claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    /// Its number.
    pub(super) number: u32,
    /// Its machine's state.
    pub(super) state: State,
    /// Who has it; `None`: that cannot be read.
    pub(super) claim: Option<Claim>,
}

/// What a host holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// The directory of all that Outlast keeps there.
    pub(super) base: String,
    /// What the host calls itself.
    pub(super) node: String,
    /// How many GPUs it counted, if it was asked.
    pub(super) gpus: Option<u32>,
    /// The slots that are claimed.
    pub(super) slots: Vec<Slot>,
    /// Slots that nobody claims and whose lock is held.
    pub(super) held: Vec<u32>,
    /// Processes of the machine that was asked about.
    pub(super) marked: u32,
    /// Directories of it.
    pub(super) left: u32,
}

/// What came of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Claimed {
    /// The machine has this slot.
    Slot(u32),
    /// None was free.
    Full(Look),
}

/// Why a script did not do its work, as the script itself says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("`{0}` is missing there, or cannot do what is needed: install it (flock is in util-linux)")]
    Missing(String),
    #[error("the account has no home directory: set `root` to an absolute path")]
    NoHome,
    #[error("its directory cannot be used: {0}")]
    NoBase(String),
    #[error("another call has held its lock for too long")]
    Busy,
    #[error("slot {0} is claimed by another installation")]
    Foreign(u32),
    #[error(
        "slot {0} was claimed on a host of another name: give each host of a shared home a `root` of its own"
    )]
    Elsewhere(u32),
    #[error("the lock of slot {0} is held by a process without the machine's mark")]
    Lock(u32),
    #[error("processes do not end: pid {0}")]
    Remains(String),
    #[error("its directory cannot be removed: {0}")]
    Erase(String),
    /// Not an answer of ours.
    #[error("its answer makes no sense: {0}")]
    Nonsense(String),
}

type Words<'a> = &'a [Vec<String>];

fn nonsense(line: &[String]) -> Refusal {
    Refusal::Nonsense(foreign(&line.join(" ")))
}

/// Text that came as hexadecimal digits.
fn unhex(digits: &str) -> Option<String> {
    let bytes = data_encoding::HEXLOWER.decode(digits.as_bytes()).ok()?;
    String::from_utf8(bytes).ok()
}

fn number(word: &str) -> Option<u32> {
    word.parse().ok().filter(|_| word.len() <= 9 && word.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Why a script stopped, if one of its lines says so.
fn refusal(line: &[String]) -> Option<Refusal> {
    let word = |n: usize| line.get(n).map_or("", String::as_str);
    let told = || foreign(unhex(word(1)).unwrap_or_default().trim());
    let slot = || number(word(1)).unwrap_or(0);
    Some(match word(0) {
        "missing" => Refusal::Missing(foreign(word(1))),
        "no-home" => Refusal::NoHome,
        "no-base" => Refusal::NoBase(told()),
        "busy" => Refusal::Busy,
        "foreign" => Refusal::Foreign(slot()),
        "elsewhere" => Refusal::Elsewhere(slot()),
        "lock" => Refusal::Lock(slot()),
        "remains" => {
            let pids = line.iter().skip(1).map(|word| word.split(':').next().unwrap_or_default());
            Refusal::Remains(foreign(&pids.collect::<Vec<_>>().join(", ")))
        }
        "erase" => Refusal::Erase(told()),
        _ => return None,
    })
}

fn refused(lines: Words<'_>) -> Result<(), Refusal> {
    lines.iter().find_map(|line| refusal(line)).map_or(Ok(()), Err)
}

impl Claim {
    /// A claim's text; anything beside it, or less than it, is none.
    fn read(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut field = |key: &str| {
            let value = lines.next()?.strip_prefix(key)?.strip_prefix(' ')?;
            let plain = value.len() <= MAX_FIELD && value.bytes().all(|byte| byte.is_ascii_graphic());
            plain.then(|| value.to_owned())
        };
        let version = field("outlast-claim")?;
        let (hub, machine, label) = (field("hub")?, field("machine")?, field("label")?);
        let (node, _boot, gpus) = (field("node")?, field("boot")?, field("gpus")?);
        let ends = lines.next() == Some("end") && lines.next().is_none();
        let gpus = Some(gpus).filter(|gpus| gpus != "-");
        let whole = ends && version == "1" && super::is_machine_id(&machine);
        whole.then_some(Self { hub, machine, label, node, gpus })
    }
}

fn slot(line: &[String]) -> Result<Slot, Refusal> {
    let (number, state) = match line {
        [_, slot, state, ..] if line.len() <= 4 => (number(slot), state.as_str()),
        _ => return Err(nonsense(line)),
    };
    let number = number.ok_or_else(|| nonsense(line))?;
    let claim = line.get(3).and_then(|digits| Claim::read(&unhex(digits)?));
    let state = match state {
        _ if claim.is_none() => State::Unclear,
        "booting" => State::Booting,
        "up" => State::Up,
        "ended" => State::Ended,
        "unclear" => State::Unclear,
        _ => return Err(nonsense(line)),
    };
    Ok(Slot { number, state, claim })
}

/// Reads what a host holds.
pub(super) fn look(lines: Words<'_>) -> Result<Look, Refusal> {
    refused(lines)?;
    let mut look = Look::default();
    for line in lines {
        let count = || line.get(1).and_then(|word| number(word)).ok_or_else(|| nonsense(line));
        match line.first().map(String::as_str) {
            Some("base") => {
                let base = line.get(1).and_then(|digits| unhex(digits));
                look.base = base.filter(|base| base.starts_with('/')).ok_or_else(|| nonsense(line))?;
            }
            Some("node") if line.len() == 2 => look.node.clone_from(&line[1]),
            Some("gpus") => look.gpus = Some(count()?.min(1024)),
            Some("slot") => look.slots.push(slot(line)?),
            Some("held") => look.held.push(count()?),
            Some("marked") => look.marked = count()?,
            Some("left") => look.left = count()?,
            Some("full") if line.len() == 1 => {}
            _ => return Err(nonsense(line)),
        }
        if look.slots.len() + look.held.len() > MAX_SLOTS {
            return Err(Refusal::Nonsense("it names too many slots".into()));
        }
    }
    let mut numbers: Vec<u32> = look.slots.iter().map(|slot| slot.number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    if numbers.len() != look.slots.len() || look.base.is_empty() || look.node.is_empty() {
        return Err(Refusal::Nonsense("it is not whole".into()));
    }
    Ok(look)
}

/// Reads what came of a claim.
pub(super) fn claimed(lines: Words<'_>) -> Result<Claimed, Refusal> {
    refused(lines)?;
    match lines {
        [base, got]
            if base.first().is_some_and(|word| word == "base")
                && got.first().is_some_and(|w| w == "claimed") =>
        {
            let slot = got.get(1).and_then(|word| number(word));
            slot.map(Claimed::Slot).ok_or_else(|| nonsense(got))
        }
        _ if lines.iter().any(|line| *line == ["full"]) => Ok(Claimed::Full(look(lines)?)),
        _ => Err(Refusal::Nonsense("it is neither a slot nor a refusal".into())),
    }
}

/// Reads what came of an end: whether there was anything to end.
pub(super) fn ended(lines: Words<'_>) -> Result<bool, Refusal> {
    refused(lines)?;
    let said = lines.iter().find(|line| line.first().is_some_and(|word| word == "ended"));
    match said.map(Vec::as_slice) {
        Some([_, existed, killed]) => match (number(existed), number(killed)) {
            (Some(existed), Some(killed)) => Ok(existed > 0 || killed > 0),
            _ => Err(Refusal::Nonsense("it counts in words".into())),
        },
        _ => Err(Refusal::Nonsense("it does not say what was ended".into())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MACHINE: &str = "abcdefghijklmnopqrstuvwxyz";

    fn hex(text: &str) -> String {
        data_encoding::HEXLOWER.encode(text.as_bytes())
    }

    fn claim(machine: &str) -> String {
        format!(
            "outlast-claim 1\nhub h\nmachine {machine}\nlabel outlast:h/m\nnode n\nboot b\ngpus 0,1\nend\n"
        )
    }

    fn words(text: &str) -> Vec<Vec<String>> {
        text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    }

    #[test]
    fn a_whole_look_is_read() {
        let text = format!(
            "base {}\nnode n\ngpus 8\nslot 0 up {}\nslot 7 unclear\nheld 3\nmarked 2\nleft 1",
            hex("/home/u/.outlast"),
            hex(&claim(MACHINE))
        );
        let look = look(&words(&text)).unwrap();
        assert_eq!((look.gpus, look.held.as_slice(), look.marked, look.left), (Some(8), &[3][..], 2, 1));
        let claim = look.slots[0].claim.as_ref().unwrap();
        assert_eq!((claim.machine.as_str(), claim.gpus.as_deref()), (MACHINE, Some("0,1")));
        assert_eq!(look.slots[1], Slot { number: 7, state: State::Unclear, claim: None });
    }

    #[test]
    fn what_is_not_whole_is_no_look() {
        let base = hex("/b");
        for text in [
            String::new(),
            format!("base {base}"),
            "node n".to_owned(),
            format!("base {}\nnode n", hex("relative")),
            format!("base {base}\nnode n\nslot x up"),
            format!("base {base}\nnode n\nslot 0 flying {}", hex(&claim(MACHINE))),
            format!("base {base}\nnode n\nslot 0 unclear\nslot 0 unclear"),
            format!("base {base}\nnode n\nmarked -1"),
            format!("base {base}\nnode n\nmarked +1"),
            format!("base {base}\nnode n\nevil"),
            format!("base {base}\nnode n\nmissing flock"),
        ] {
            assert!(look(&words(&text)).is_err(), "{text}");
        }
    }

    #[test]
    fn a_claim_is_whole_or_none() {
        assert!(Claim::read(&claim(MACHINE)).is_some());
        let whole = claim(MACHINE);
        for cut in 0..whole.len() - 1 {
            assert_eq!(Claim::read(&whole[..cut]), None, "{cut}");
        }
        for bad in [
            claim("../../etc"),
            format!("{whole}more"),
            whole.replace("label outlast:h/m", "label a b"),
            whole.replace("label outlast:h/m", &format!("label {}", "x".repeat(300))),
            whole.replace("claim 1", "claim 2"),
        ] {
            assert_eq!(Claim::read(&bad), None, "{bad}");
        }
    }

    #[test]
    fn refusals_are_told_and_plain() {
        let erase = format!("base {}\nerase {}", hex("/b"), hex("rm: \x1b[2Jx: busy"));
        let error = ended(&words(&erase)).unwrap_err().to_string();
        assert!(error.contains("busy") && !error.contains('\x1b'), "{error}");
        assert_eq!(ended(&words("remains 12:99 13:99")), Err(Refusal::Remains("12, 13".into())));
        assert_eq!(claimed(&words("foreign 3")), Err(Refusal::Foreign(3)));
        assert_eq!(ended(&words("ended 0 0")), Ok(false));
        assert_eq!(ended(&words("ended 0 4")), Ok(true));
        assert_eq!(claimed(&words(&format!("base {}\nclaimed 2", hex("/b")))), Ok(Claimed::Slot(2)));
    }

    proptest! {
        #[test]
        fn nothing_that_a_host_says_breaks_anything(text in "(base|node|slot|held|claimed|full|ended|marked|erase|[0-9a-f ]{0,9}|\n|.){0,40}") {
            let lines = words(&text);
            let _ = (look(&lines), claimed(&lines), ended(&lines));
        }
    }
}
