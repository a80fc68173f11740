//! Why a change of state is refused. One type for all state machines, so that
//! every caller reports a refusal alike and none can swallow it as a string.

/// A move that has no edge in the diagram.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{machine} in state {from} does not accept {event}: {reason}")]
pub struct Refusal {
    /// Which state machine refused.
    pub machine: &'static str,
    /// The state it was in.
    pub from: &'static str,
    /// The event that was offered.
    pub event: &'static str,
    /// The rule behind the refusal.
    pub reason: Reason,
}

/// The rules that refuse events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Terminal states absorb.
    #[error("it has ended")]
    Terminal,
    /// No edge leads from here by this event.
    #[error("no such edge")]
    NoEdge,
}

impl Refusal {
    pub(crate) fn new(
        machine: &'static str,
        from: &'static str,
        event: &'static str,
        terminal: bool,
    ) -> Self {
        let reason = if terminal { Reason::Terminal } else { Reason::NoEdge };
        Self { machine, from, event, reason }
    }
}

/// The state names that a module's diagram draws: every word in capitals on
/// the lines of its first code block. Used by the tests that hold diagrams
/// and enums together.
#[cfg(test)]
pub(crate) fn names_in_diagram(source: &str) -> std::collections::BTreeSet<String> {
    source
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .skip_while(|line| !line.contains("```"))
        .skip(1)
        .take_while(|line| !line.contains("```"))
        .flat_map(|line| line.split(|c: char| !c.is_ascii_uppercase() && c != '_'))
        .filter(|word| word.len() > 2)
        .map(str::to_owned)
        .collect()
}
