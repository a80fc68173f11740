//! Which call a method and a path are. Paths are compared as they are listed:
//! a slash too many or too few is another path.

use serde::Serialize;

/// Every call of the vendor's API that is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(super) enum Op {
    User,
    Search,
    Create,
    CreateBulk,
    Launch,
    List,
    ListOld,
    Filters,
    Show,
    Set,
    SetBulk,
    Reboot,
    Recycle,
    Destroy,
    DestroyBulk,
    Bid,
    Update,
    Prepay,
    Deposit,
    Logs,
    Execute,
    Copy,
    SshList,
    SshCreate,
    SshUpdate,
    SshDelete,
    InstanceSsh,
    Attach,
    Detach,
    Snapshot,
    Charges,
    Invoices,
    InvoicesOld,
    Secrets,
    Volumes,
    Result,
    /// Answered with success and nothing else.
    Stub,
    Unknown,
}

impl Op {
    /// Its name in the journal and in rules of faults.
    #[must_use]
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Search => "search",
            Self::Create => "create",
            Self::CreateBulk => "create_bulk",
            Self::Launch => "launch",
            Self::List => "list",
            Self::ListOld => "list_old",
            Self::Filters => "filters",
            Self::Show => "show",
            Self::Set => "set",
            Self::SetBulk => "set_bulk",
            Self::Reboot => "reboot",
            Self::Recycle => "recycle",
            Self::Destroy => "destroy",
            Self::DestroyBulk => "destroy_bulk",
            Self::Bid => "bid",
            Self::Update => "update",
            Self::Prepay => "prepay",
            Self::Deposit => "deposit",
            Self::Logs => "logs",
            Self::Execute => "execute",
            Self::Copy => "copy",
            Self::SshList => "ssh_list",
            Self::SshCreate => "ssh_create",
            Self::SshUpdate => "ssh_update",
            Self::SshDelete => "ssh_delete",
            Self::InstanceSsh => "instance_ssh",
            Self::Attach => "attach",
            Self::Detach => "detach",
            Self::Snapshot => "snapshot",
            Self::Charges => "charges",
            Self::Invoices => "invoices",
            Self::InvoicesOld => "invoices_old",
            Self::Secrets => "secrets",
            Self::Volumes => "volumes",
            Self::Result => "result",
            Self::Stub => "stub",
            Self::Unknown => "unknown",
        }
    }

    /// The right that it needs.
    pub(super) const fn right(self) -> &'static str {
        match self {
            Self::User | Self::Deposit => "user_read",
            Self::List | Self::ListOld | Self::Filters | Self::Show | Self::Logs | Self::InstanceSsh => {
                "instance_read"
            }
            Self::Charges | Self::Invoices | Self::InvoicesOld => "billing_read",
            Self::SshList => "user_read",
            Self::SshCreate | Self::SshUpdate | Self::SshDelete | Self::Secrets => "user_write",
            Self::Search | Self::Volumes | Self::Result | Self::Unknown => "misc",
            _ => "instance_write",
        }
    }
}

/// A call with the ids in its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) op: Op,
    /// Of an instance, an ask or a key.
    pub(super) id: u64,
    /// Of a key at an instance.
    pub(super) second: u64,
}

/// Methods, paths and calls. `#` is a number.
const TABLE: &[(&str, &str, Op)] = &[
    ("GET", "/api/v0/users/current", Op::User),
    ("POST", "/api/v0/bundles/", Op::Search),
    ("PUT", "/api/v0/search/asks/", Op::Search),
    ("PUT", "/api/v0/asks/#/", Op::Create),
    ("POST", "/api/v0/asks/bulk/", Op::CreateBulk),
    ("PUT", "/api/v0/launch_instance/", Op::Launch),
    ("GET", "/api/v1/instances/", Op::List),
    ("GET", "/api/v0/instances", Op::ListOld),
    ("GET", "/api/v0/instances/filters/", Op::Filters),
    ("GET", "/api/v0/instances/#/", Op::Show),
    ("PUT", "/api/v0/instances/#/", Op::Set),
    ("PUT", "/api/v0/instances/", Op::SetBulk),
    ("PUT", "/api/v0/instances/reboot/#/", Op::Reboot),
    ("PUT", "/api/v0/instances/recycle/#/", Op::Recycle),
    ("DELETE", "/api/v0/instances/#/", Op::Destroy),
    ("DELETE", "/api/v0/instances/", Op::DestroyBulk),
    ("PUT", "/api/v0/instances/bid_price/#/", Op::Bid),
    ("PUT", "/api/v0/instances/update_template/#/", Op::Update),
    ("PUT", "/api/v0/instances/prepay/#/", Op::Prepay),
    ("GET", "/api/v0/instances/balance/#/", Op::Deposit),
    ("PUT", "/api/v0/instances/request_logs/#/", Op::Logs),
    ("PUT", "/api/v0/instances/command/#/", Op::Execute),
    ("PUT", "/api/v0/commands/copy_direct/", Op::Copy),
    ("DELETE", "/api/v0/commands/copy_direct/", Op::Stub),
    ("PUT", "/api/v0/commands/rsync/", Op::Copy),
    ("DELETE", "/api/v0/commands/rsync/", Op::Stub),
    ("POST", "/api/v0/commands/rclone/", Op::Stub),
    ("GET", "/api/v0/users/me/machine-earnings", Op::Stub),
    ("GET", "/api/v0/instance_backups/", Op::Stub),
    ("POST", "/api/v0/webhooks/", Op::Stub),
    ("GET", "/api/v0/ssh/", Op::SshList),
    ("POST", "/api/v0/ssh/", Op::SshCreate),
    ("PUT", "/api/v0/ssh/#/", Op::SshUpdate),
    ("DELETE", "/api/v0/ssh/#/", Op::SshDelete),
    ("GET", "/api/v0/instances/#/ssh/", Op::InstanceSsh),
    ("POST", "/api/v0/instances/#/ssh/", Op::Attach),
    ("DELETE", "/api/v0/instances/#/ssh/#/", Op::Detach),
    ("POST", "/api/v0/instances/take_snapshot/#/", Op::Snapshot),
    ("GET", "/api/v0/charges/", Op::Charges),
    ("GET", "/api/v1/invoices/", Op::Invoices),
    ("GET", "/api/v0/users/me/invoices", Op::InvoicesOld),
    ("GET", "/api/v0/secrets/", Op::Secrets),
    ("GET", "/api/v0/volumes", Op::Volumes),
    ("GET", "/results/#", Op::Result),
];

/// What a request asks for.
pub(super) fn route(method: &str, path: &str) -> Route {
    for (wanted, pattern, op) in TABLE {
        if *wanted != method {
            continue;
        }
        if let Some((id, second)) = fits(pattern, path) {
            return Route { op: *op, id, second };
        }
    }
    Route { op: Op::Unknown, id: 0, second: 0 }
}

/// The numbers of a path that has the form of a pattern.
fn fits(pattern: &str, path: &str) -> Option<(u64, u64)> {
    let mut ids = [0_u64; 2];
    let mut found = 0;
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return Some((ids[0], ids[1])),
            (Some("#"), Some(part)) if part.bytes().all(|byte| byte.is_ascii_digit()) => {
                *ids.get_mut(found)? = part.parse().ok()?;
                found += 1;
            }
            (Some(want), Some(part)) if want == part && want != "#" => {}
            _ => return None,
        }
    }
}
