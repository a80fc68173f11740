//! What is said of a key and of the money of its account.

use super::*;
use crate::provider::NoOffers;

/// A vendor that accepts nobody.
async fn closed() -> Vendor {
    let body = r#"{"success":false,"error":"auth_error","msg":"Invalid user key"}"#;
    Vendor::new(move |_| Some((401, body.into()))).await
}

#[tokio::test]
async fn a_rejected_key_is_named_wherever_it_is_met_and_nobody_is_told_to_wait() {
    let vendor = closed().await;
    let provider = vendor.provider();
    let named = |text: &str| {
        let parts = ["401", "variable VAST_API_KEY", "is not accepted", "manage-keys", "controller stop"];
        for part in parts {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
        // The key of the test is too short to show its end.
        assert!(!text.contains("canary") && !text.contains("later"), "{text}");
    };
    let asked = provider.offers(&MachineSpec::default(), None, &Appraisal::default()).await;
    let NoOffers { why, trouble } = asked.unwrap_err();
    assert_eq!(trouble, Trouble::Key);
    named(&why);
    let Listing::Error(why) = provider.list("outlast:").await else { panic!() };
    named(&why);
    let CreateOutcome::Rejected { reason, trouble, .. } = provider.create(&wanted()).await else { panic!() };
    assert_eq!(trouble, Trouble::Key);
    named(&reason);
    let DestroyOutcome::Unknown(why) = provider.destroy("7").await else { panic!() };
    named(&why);
}

#[tokio::test]
async fn the_account_is_asked_whether_it_accepts_the_key_and_what_money_there_is() {
    let with = |credit: f64| async move {
        Vendor::new(move |line| {
            assert_eq!(line, "GET /api/v0/users/current");
            Some((200, json!({"id": 1, "credit": credit, "balance": 0}).to_string()))
        })
        .await
    };
    let rich = with(12.5).await.provider().standing().await;
    assert_eq!((rich.credit_usd, rich.problem), (Some(12.5), None));
    assert_eq!(rich.key, "the key in the variable VAST_API_KEY");
    let poor = with(0.0).await.provider().standing().await;
    assert!(poor.problem.unwrap().0.contains("no money left"), "{:?}", poor.credit_usd);
    let vendor = closed().await;
    let (problem, cure) = vendor.provider().standing().await.problem.unwrap();
    assert!(problem.contains("is not accepted") && cure.contains("key right"), "{problem} {cure}");
    // Who has no key has not set it up: that is no fault, and nobody is asked.
    let none = VastProvider::new(vendor.provider().config.clone(), |_| None).unwrap().standing().await;
    assert_eq!((none.key.as_str(), none.credit_usd, none.problem), ("", None, None));
    assert_eq!(vendor.lines().len(), 1);
}
