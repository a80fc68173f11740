//! Sends one message over HTTP, signed. The address and the secret may both be
//! secrets: neither is ever shown, not even in an error.

use std::time::Duration;

use aws_lc_rs::hmac;
use reqwest::{Client, redirect};

use super::notice::Notice;
use super::outbox::Outcome;
use super::settings::{Format, Place, address};

const PATIENCE: Duration = Duration::from_secs(10);
/// The header that carries the moment of sending and the signature.
const SIGNATURE: &str = "Outlast-Signature";

/// What sends.
///
/// # Errors
/// Where there is no TLS to be had.
pub(super) fn client() -> Result<Client, String> {
    Client::builder()
        .user_agent(concat!("outlast/", env!("CARGO_PKG_VERSION")))
        .timeout(PATIENCE)
        // Elsewhere nobody agreed to be told.
        .redirect(redirect::Policy::none())
        .build()
        .map_err(|_| "there is no HTTP client".to_owned())
}

/// `t=SECONDS,v1=HEX` over `SECONDS.BODY` with HMAC-SHA256: who keeps the
/// seconds near their own clock takes no message twice that somebody recorded.
pub(super) fn signature(secret: &str, at_s: u64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{at_s}.{body}").as_bytes());
    format!("t={at_s},v1={}", data_encoding::HEXLOWER.encode(tag.as_ref()))
}

/// Sends one.
pub(super) async fn send(
    client: &Client,
    (url, secret, format): (&Place, Option<&Place>, Format),
    notice: &Notice,
    hub: &str,
    at_s: u64,
) -> Outcome {
    let prepared = url.text().and_then(|text| {
        let url = address(&text).map_err(|why| format!("its address {why}"))?;
        Ok((url, secret.map(Place::text).transpose()?))
    });
    let (url, secret) = match prepared {
        Ok(prepared) => prepared,
        Err(why) => return Outcome::Away(why),
    };
    let body = match format {
        Format::Json => notice.json(hub),
        Format::Slack => notice.slack(),
    }
    .to_string();
    let mut request =
        client.post(url).header("Content-Type", "application/json").header("Outlast-Id", &notice.id);
    if let Some(secret) = secret {
        request = request.header(SIGNATURE, signature(&secret, at_s, &body));
    }
    match request.body(body).send().await {
        Ok(response) => answered(response.status().as_u16()),
        Err(error) if error.is_timeout() => Outcome::Away(format!("no answer within {PATIENCE:?}")),
        Err(error) if error.is_connect() => Outcome::Away("it cannot be reached".into()),
        Err(_) => Outcome::Away("the connection broke".into()),
    }
}

/// What a status means: a receiver that is busy or broken gets all again
/// later, one that does not like this message gets the next.
fn answered(status: u16) -> Outcome {
    match status {
        200..=299 => Outcome::Taken,
        408 | 425 | 429 | 500..=599 => Outcome::Away(format!("it answered {status}")),
        _ => Outcome::Refused(format!("it answered {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_the_one_that_others_compute() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac hunter2
        let made = signature("hunter2", 1_700_000_000, r#"{"a":1}"#);
        assert_eq!(made, "t=1700000000,v1=56b25cbf563812b38800e5f4dd1febfde087d36841155e70b3aa285517e1570a");
    }

    #[test]
    fn each_status_is_taken_refused_or_tried_again() {
        assert_eq!((answered(200), answered(204)), (Outcome::Taken, Outcome::Taken));
        for status in [408, 429, 500, 502, 503] {
            assert!(matches!(answered(status), Outcome::Away(_)), "{status}");
        }
        for status in [301, 302, 400, 404, 410] {
            assert!(matches!(answered(status), Outcome::Refused(_)), "{status}");
        }
    }
}
