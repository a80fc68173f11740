//! Whose account the key is of and what money it has, asked when somebody tries
//! out what is set up. Changes nothing, and never says the key.

use serde_json::Value;

use super::answer::{Kind, printable};
use super::{Op, VastProvider, unclear};

/// How the account stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The key in words: where it came from, and its end; empty: there is none,
    /// so nobody has set this provider up.
    pub key: String,
    /// US dollars that it may spend; `None`: not told.
    pub credit_usd: Option<f64>,
    /// What is wrong, and what to do about it.
    pub problem: Option<(String, String)>,
}

impl VastProvider {
    /// Asks the vendor whether it accepts the key, and what money there is.
    pub async fn standing(&self) -> Standing {
        let nothing = Standing { key: String::new(), credit_usd: None, problem: None };
        let key = match self.key() {
            Ok(key) => key.named(),
            // No key at all is no fault: whoever rents nothing needs none.
            Err(_) if self.unusable.is_none() && !self.key.any() => return nothing,
            Err(failure) => {
                let cure = "set the key right: nothing can be rented before".to_owned();
                return Standing { problem: Some((failure.text, cure)), ..nothing };
            }
        };
        let asked = self.read(Op::Keys, "/api/v0/users/current".into()).await;
        match asked.and_then(|answer| credit(&answer).ok_or_else(|| unclear("the question for the account")))
        {
            Ok(usd) if usd <= 0.0 => {
                let problem = format!("the account has no money left (${usd:.2}): nothing can be rented");
                let cure = "add credit at https://cloud.vast.ai/billing/".to_owned();
                Standing { key, credit_usd: Some(usd), problem: Some((problem, cure)) }
            }
            Ok(usd) => Standing { key, credit_usd: Some(usd), problem: None },
            Err(failure) => {
                let cure = match failure.kind {
                    Kind::Key | Kind::Forbidden => "set the key right: nothing can be rented before",
                    _ => "see whether https://console.vast.ai answers from this computer",
                };
                Standing { key, credit_usd: None, problem: Some((printable(&failure.text), cure.to_owned())) }
            }
        }
    }
}

/// What the account may spend: its credit, and what lies on it besides.
fn credit(answer: &Value) -> Option<f64> {
    let number = |name: &str| match answer.get(name)? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse::<f64>().ok(),
        _ => None,
    };
    let finite = |name: &str| number(name).filter(|usd| usd.is_finite());
    match (finite("credit"), finite("balance")) {
        (None, None) => None,
        (credit, balance) => Some(credit.unwrap_or(0.0) + balance.unwrap_or(0.0).max(0.0)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn credit_is_read_from_what_the_vendor_writes_and_nothing_else_is_money() {
        assert_eq!(credit(&json!({"credit": 12.5, "balance": 0.0})), Some(12.5));
        assert_eq!(credit(&json!({"credit": "3.25"})), Some(3.25));
        assert_eq!(credit(&json!({"credit": 0, "balance": 4})), Some(4.0));
        for odd in
            [json!({}), json!([]), json!({"credit": null}), json!({"credit": "NaN"}), json!({"credit": []})]
        {
            assert_eq!(credit(&odd), None, "{odd}");
        }
    }
}
