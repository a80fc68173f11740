//! What machines of a provider can do and what becomes of them, as the provider
//! declares it in one place; the contract holds it to that. It promises nothing
//! of a single machine.

/// What a provider's machines can do. Nothing, where nothing is declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// Machines are to be had that it may take back.
    pub interruptible: bool,
    /// One that it stopped starts again by itself: what ran there runs again,
    /// under a generation that is over.
    pub resumes_itself: bool,
    /// One that is stopped costs something all the same: only its end is free.
    pub billed_while_stopped: bool,
    /// How many seconds before it takes a machine it says so; 0: it does not.
    pub notice_s: u64,
    /// An image of a machine can be taken by the product.
    pub snapshot: bool,
    /// A machine can be made from another one by the product.
    pub clone: bool,
    /// A machine has a key with which it can end itself.
    pub self_destroy_key: bool,
    /// A create takes a key that keeps its repetition from making another one.
    pub idempotency_token: bool,
}
