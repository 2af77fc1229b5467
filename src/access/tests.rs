//! Keys, addresses and manners together.

use super::*;
use crate::clock::SystemClock;

fn access(addresses: &[&str]) -> Access {
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    let client = ClientConfig {
        name: "shop".into(),
        keys: vec![Secret::new("key-of-the-shop-0")],
        sources: None,
        addresses: Some(addresses),
    };
    let secret = Secret::new("request-secret-00");
    Access::new(secret, None, vec![client], SystemClock::shared())
}

fn outcome(found: Result<&Arc<User>, Refusal>) -> String {
    match found {
        Ok(user) => user.name().to_owned(),
        Err(Refusal::NoKey) => "no key".into(),
        Err(Refusal::WrongKey) => "wrong key".into(),
        Err(Refusal::WrongAddress(user)) => format!("wrong address of {}", user.name()),
    }
}

#[test]
fn a_key_is_good_from_its_addresses_only() {
    let access = access(&["10.0.0.0/8", "2001:db8::/32"]);
    let shop = Some(&b"key-of-the-shop-0"[..]);
    for (key, address, expected) in [
        (shop, "10.1.2.3", "shop"),
        (shop, "::ffff:10.1.2.3", "shop"),
        (shop, "2001:db8:1::7", "shop"),
        (shop, "11.1.2.3", "wrong address of shop"),
        (shop, "127.0.0.1", "wrong address of shop"),
        (Some(b"request-secret-00"), "11.1.2.3", "default"),
        (Some(b"request-secret-01"), "10.1.2.3", "wrong key"),
        (Some(b""), "10.1.2.3", "wrong key"),
        (None, "10.1.2.3", "no key"),
    ] {
        let address = address.parse().unwrap();
        assert_eq!(outcome(access.with_key(key, address)), expected, "{address}");
        let named = key.map(|key| outcome(access.with_name(b"shop", key, address)));
        let expected = if expected == "default" { "wrong key" } else { expected };
        assert!(named.is_none_or(|named| named == expected), "{address}");
    }
}

#[test]
fn who_shows_no_key_is_not_slowed() {
    let access = access(&["10.0.0.0/8"]);
    let address = IpAddr::from([192, 0, 2, 1]);
    let manner = |refusal| access.turn_away(refusal, address, Via::Http);
    assert!((0..200).all(|_| matches!(manner(&Refusal::NoKey), Manner::AtOnce)));
    let slowed = (0..200).filter(|_| matches!(manner(&Refusal::WrongKey), Manner::Slowly(_)));
    assert!(slowed.count() > 150);
    // A right key from there goes on being right.
    assert!(access.with_key(Some(b"request-secret-00"), address).is_ok());
}
