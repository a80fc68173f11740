//! Azure's scheduled events: what its answers say, and the acknowledgement.
//! Pure. A freeze is a pause of seconds and no end; what reboots or moves the
//! machine ends what runs on it, as a preemption does.

use serde::Deserialize;
use serde_json::json;

use super::time::rfc1123;
use super::{Kind, Notice, Word};

pub(super) const HOST: &str = "169.254.169.254";
pub(super) const HEADER: (&str, &str) = ("Metadata", "true");
pub(super) const EVENTS: &str = "/metadata/scheduledevents?api-version=2020-07-01";
pub(super) const NAME: &str = "/metadata/instance/compute/name?api-version=2021-02-01&format=text";
/// Events looked at; an answer is bounded anyway.
const MOST: usize = 256;

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "Events")]
    events: Vec<Event>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    event_id: String,
    event_type: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    not_before: String,
    #[serde(default)]
    event_status: String,
}

/// The answer to [`EVENTS`]. `own` is this machine's name there, where it is
/// known: the document also tells of its neighbours.
pub(super) fn events(status: u16, body: &[u8], own: Option<&str>, now_ms: u64) -> Word {
    let document = (status == 200).then(|| serde_json::from_slice::<Document>(body).ok()).flatten();
    let Some(document) = document else {
        return Word::Odd(format!("scheduledevents answered {status} with something that is no list"));
    };
    let mut odd = None;
    let mut found: Option<Notice> = None;
    for event in document.events.iter().take(MOST) {
        if own.is_some_and(|own| !event.resources.iter().any(|name| name.eq_ignore_ascii_case(own))) {
            continue;
        }
        match event.event_type.as_str() {
            "Freeze" => continue,
            "Preempt" | "Terminate" | "Reboot" | "Redeploy" => {}
            _ => {
                odd = Some("scheduledevents names a kind of event that is not known".to_owned());
                continue;
            }
        }
        if matches!(event.event_status.as_str(), "Completed" | "Canceled") {
            continue;
        }
        // What has begun has no time any more.
        let until = if event.not_before.is_empty() { Some(now_ms) } else { rfc1123(&event.not_before) };
        let mut notice = Notice::new(Kind::Ends, &event.event_type, until);
        notice.event = Some(event.event_id.clone()).filter(|id| is_id(id));
        let sooner = |before: &Notice| notice.until_unix_ms < before.until_unix_ms;
        if found.as_ref().is_none_or(sooner) {
            found = Some(notice);
        }
    }
    match (found, odd) {
        (Some(notice), _) => Word::Notice(notice),
        (None, Some(odd)) => Word::Odd(odd),
        (None, None) => Word::Quiet,
    }
}

fn is_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// This machine's name, as events give it.
pub(super) fn name(status: u16, body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?.trim();
    let fit = status == 200 && !text.is_empty() && text.len() <= 128;
    (fit && text.bytes().all(|b| b.is_ascii_graphic())).then(|| text.to_owned())
}

/// What lets an event begin before its time.
pub(super) fn acknowledgement(event: &str) -> Vec<u8> {
    json!({"StartRequests": [{"EventId": event}]}).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(kind: &str, not_before: &str, vm: &str) -> String {
        json!({"DocumentIncarnation": 2, "Events": [{"EventId": "C7061BAC-AFDC-4513-B24B-AA5F13A16123",
            "EventType": kind, "ResourceType": "VirtualMachine", "Resources": [vm], "EventStatus": "Scheduled",
            "NotBefore": not_before, "Description": "", "EventSource": "Platform", "DurationInSeconds": -1}]})
        .to_string()
    }

    #[test]
    fn what_ends_the_machine_is_a_notice_and_a_freeze_is_none() {
        let time = "Mon, 19 Sep 2016 18:29:47 GMT";
        for kind in ["Preempt", "Terminate", "Reboot", "Redeploy"] {
            let Word::Notice(notice) = events(200, document(kind, time, "vm").as_bytes(), Some("VM"), 0)
            else {
                panic!("{kind} is no notice")
            };
            assert_eq!((notice.kind, notice.text.as_str()), (Kind::Ends, kind));
            assert_eq!(notice.until_unix_ms, Some(1_474_309_787_000));
            assert_eq!(notice.event.as_deref(), Some("C7061BAC-AFDC-4513-B24B-AA5F13A16123"));
        }
        assert_eq!(events(200, document("Freeze", time, "vm").as_bytes(), None, 0), Word::Quiet);
        let begun = events(200, document("Preempt", "", "vm").as_bytes(), None, 7);
        assert!(matches!(begun, Word::Notice(notice) if notice.until_unix_ms == Some(7)));
        assert_eq!(events(200, br#"{"DocumentIncarnation":1,"Events":[]}"#, None, 0), Word::Quiet);
    }

    #[test]
    fn a_neighbours_end_is_not_ones_own() {
        let text = document("Preempt", "", "vm-2");
        assert_eq!(events(200, text.as_bytes(), Some("vm-1"), 0), Word::Quiet);
        assert!(
            matches!(events(200, text.as_bytes(), None, 0), Word::Notice(_)),
            "one's own name is not known"
        );
    }

    #[test]
    fn what_is_no_list_is_odd() {
        let strange = document("Dance", "", "vm");
        let bodies: [&[u8]; 5] =
            [b"", b"<html>", b"{}", br#"{"Events":[{"EventId":5}]}"#, strange.as_bytes()];
        for body in bodies {
            assert!(matches!(events(200, body, None, 0), Word::Odd(_)), "{body:?}");
        }
        assert!(matches!(events(500, document("Preempt", "", "vm").as_bytes(), None, 0), Word::Odd(_)));
        let mut text = document("Preempt", "", "vm");
        text = text.replace("C7061BAC-AFDC-4513-B24B-AA5F13A16123", "a\\\",{");
        assert!(
            matches!(events(200, text.as_bytes(), None, 0), Word::Notice(notice) if notice.event.is_none())
        );
    }
}
