//! Messages that carry keys say so and nothing else when they are printed. They
//! have no other text form: what is generated for them leaves the keys out.

use std::fmt;

use crate::v1::{Sealing, Secret, UnsealReply};

impl fmt::Debug for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealing(.., to {} recipients)", self.recipients.len())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({}, ..)", self.name)
    }
}

impl fmt::Debug for UnsealReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnsealReply(..)")
    }
}

#[cfg(test)]
mod tests {
    use crate::v1;

    #[test]
    fn keys_are_neither_printed_nor_written_as_text() {
        let sealing = v1::Sealing { secret: vec![0xa5; 32], recipients: vec![vec![1; 32]] };
        let secrets = vec![v1::Secret { name: "HF_TOKEN".into(), value: "canary".into() }];
        let submitted = v1::SubmitRequest { secrets: secrets.clone(), ..v1::SubmitRequest::default() };
        let work = v1::Work { sealed: true, sealing: Some(sealing.clone()), secrets, ..v1::Work::default() };
        let reply = v1::UnsealReply { manifest_opens: vec![0xa5; 32] };
        let down = v1::Down {
            body: Some(v1::down::Body::Assignment(v1::Assignment { revision: 1, work: Some(work.clone()) })),
        };
        let shown = format!(
            "{work:?} {work:#?} {down:?} {reply:?} {submitted:?} {} {} {} {}",
            serde_json::to_string(&submitted).unwrap(),
            serde_json::to_string(&work).unwrap(),
            serde_json::to_string(&sealing).unwrap(),
            serde_json::to_string(&reply).unwrap()
        );
        for bytes in ["165", "a5a5", "paWl", "canary"] {
            assert!(!shown.contains(bytes), "{bytes}: {shown}");
        }
    }
}
