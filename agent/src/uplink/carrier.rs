//! Where the lanes' byte streams come from: dialled here, or brought by a
//! controller that dialled this machine. Nothing above knows the difference.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use proto::link::Lane;
use tokio::io::{AsyncRead, AsyncWrite};

use super::accepted::Slots;

/// A byte stream of any kind.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A stream that is coming.
pub type Dialled = Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send>>;

/// How a lane's byte stream comes about: dialled, or handed in.
pub type Dialler = Arc<dyn Fn() -> Dialled + Send + Sync>;

/// Where the lanes lead.
#[derive(Clone)]
pub struct Carrier {
    /// For display: "dial" or "ssh".
    pub(super) name: &'static str,
    pub(super) control: Dialler,
    pub(super) bulk: Dialler,
    /// The join service.
    pub(super) join: Dialler,
    /// Where streams are handed in: those that wait.
    pub(super) handed: Option<Arc<Slots>>,
}

impl Carrier {
    /// Straight TCP to the first endpoint that answers.
    #[must_use]
    pub fn dial(endpoints: Vec<String>, join_endpoints: Vec<String>) -> Self {
        let lane = |list: Vec<String>| -> Dialler {
            let list: Arc<[String]> = list.into();
            Arc::new(move || {
                let list = list.clone();
                Box::pin(async move {
                    let stream = proto::channel::connect_first(list).await?;
                    Ok(Box::new(stream) as Box<dyn Io>)
                })
            })
        };
        Self::over("dial", lane(endpoints), lane(join_endpoints))
    }

    /// Any way to dial: `link` for control and bulk, a connection each, and
    /// `join`.
    #[must_use]
    pub fn over(name: &'static str, link: Dialler, join: Dialler) -> Self {
        Self { name, control: link.clone(), bulk: link, join, handed: None }
    }

    /// What a controller brings.
    #[must_use]
    pub fn accepted(slots: Slots) -> Self {
        let slots = Arc::new(slots);
        let lane = |lane: Lane| -> Dialler {
            let slots = slots.clone();
            Arc::new(move || {
                let slots = slots.clone();
                Box::pin(async move { Ok(Box::new(slots.take(lane).await) as Box<dyn Io>) })
            })
        };
        Self {
            name: "ssh",
            control: lane(Lane::Control),
            bulk: lane(Lane::Bulk),
            join: lane(Lane::Join),
            handed: Some(slots),
        }
    }

    /// Waits until dialling makes sense: at once where this side dials, else
    /// when a stream is there to be taken.
    pub(super) async fn ready(&self, lane: Lane) {
        if let Some(slots) = &self.handed {
            slots.come(lane).await;
        }
    }
}
