//! HMAC-SHA256 signatures: of subscriptions and of HTTP requests.
//!
//! Comparison takes the same time whatever the difference is.

use std::borrow::Cow;
use std::fmt;

use data_encoding::HEXLOWER_PERMISSIVE;
use hmac::{Hmac, KeyInit, Mac};
use indexmap::IndexMap;
use sha2::Sha256;

/// An application's secret, ready to sign. Never printed.
#[derive(Clone)]
pub struct Secret(Hmac<Sha256>);

impl Secret {
    /// Prepares the key once, so that a signature costs two hash blocks less.
    pub fn new(secret: &str) -> Self {
        Self(Hmac::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length"))
    }

    /// Lower-case hex of the HMAC of all `parts` one after the other.
    pub fn sign(&self, parts: &[&[u8]]) -> String {
        hex::encode(self.mac(parts).finalize().into_bytes())
    }

    /// Whether `signature` (hex, either case) is the HMAC of all `parts`.
    pub fn verify(&self, parts: &[&[u8]], signature: &str) -> bool {
        decode_hex::<32>(signature)
            .is_some_and(|bytes| self.mac(parts).verify_slice(&bytes).is_ok())
    }

    fn mac(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(part);
        }
        mac
    }
}

/// Compares what they sign, since that is all that is kept of a secret.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.mac(&[]).finalize() == other.mac(&[]).finalize()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// The bytes that a text of hexadecimal digits, of either case, stands for; `None` if it is
/// none or has another length.
pub fn decode_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    HEXLOWER_PERMISSIVE
        .decode_mut(text.as_bytes(), &mut bytes)
        .ok()?;
    Some(bytes)
}

/// What is signed to allow `socket_id` to join `channel`: `socket_id:channel`, or
/// `socket_id:channel:channel_data`.
pub fn of_subscription<'a>(
    socket_id: &'a str,
    channel: &'a str,
    channel_data: Option<&'a str>,
) -> [&'a [u8]; 5] {
    let (colon, data) = match channel_data {
        Some(data) => (":", data),
        None => ("", ""),
    };
    [socket_id, ":", channel, colon, data].map(str::as_bytes)
}

/// Splits a client's `auth`, `KEY:SIGNATURE`.
pub fn split_auth(auth: &str) -> Option<(&str, &str)> {
    auth.split_once(':')
}

/// A parameter of a query, decoded: its name and its value.
pub type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// The query string in the form that is signed: keys lower-cased and sorted,
/// values not escaped, `auth_signature` left out
/// (Pusher's HTTP API, "Authentication").
pub fn canonical_query(pairs: &[Pair<'_>]) -> String {
    canonical(pairs, |key| {
        if key.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(key.to_ascii_lowercase())
        } else {
            Cow::Borrowed(key)
        }
    })
}

/// The same with the keys as they were sent, which is what Reverb checks.
pub fn canonical_query_as_sent(pairs: &[Pair<'_>]) -> String {
    canonical(pairs, Cow::Borrowed)
}

/// The query of a caller that signs lists as pusher-http-php does, which Reverb
/// checks, too: `info[0]=a&info[1]=b` is signed as `info=a,b`. `None` if there is no
/// list. Whoever verifies these pairs has to use them instead of those that came: a
/// signature of `info=a,b` does not say in how many parts it was sent.
pub fn joined_lists(pairs: &[Pair<'_>]) -> Option<Vec<Pair<'static>>> {
    // The key of a list, and of nothing that is nested deeper.
    let list = |key: &str| {
        let (name, index) = key.strip_suffix(']')?.split_once('[')?;
        (!name.is_empty() && !index.contains(['[', ']'])).then_some(name.len())
    };
    pairs.iter().find_map(|(key, _)| list(key))?;
    let mut joined: IndexMap<(&str, Option<usize>), String> = IndexMap::new();
    for (at, (key, value)) in pairs.iter().enumerate() {
        let name = list(key).map_or((&**key, Some(at)), |end| (&key[..end], None));
        let parts = joined.entry(name);
        parts
            .and_modify(|text| text.extend([",", &**value]))
            .or_insert_with(|| value.clone().into_owned());
    }
    let joined = joined.into_iter();
    Some(
        joined
            .map(|((name, _), text)| (name.to_owned().into(), text.into()))
            .collect(),
    )
}

fn canonical<'a>(pairs: &'a [Pair<'_>], name: impl Fn(&'a str) -> Cow<'a, str>) -> String {
    let mut sorted: Vec<(Cow<'a, str>, &str)> = pairs
        .iter()
        .map(|(key, value)| (name(key), &**value))
        .filter(|(key, _)| !key.eq_ignore_ascii_case("auth_signature"))
        .collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    let mut out = String::with_capacity(160);
    for (key, value) in sorted {
        if !out.is_empty() {
            out.push('&');
        }
        out.push_str(&key);
        out.push('=');
        out.push_str(value);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors were recomputed; Pusher's page prints the hash of
    /// "Mr. Pusher" beside the text "Mr. Channels".
    #[test]
    fn pushers_subscription_vectors() {
        let secret = Secret::new("7ad3773142a6692b25b8");
        for (channel, data, signature) in [
            (
                "private-foobar",
                None,
                "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4",
            ),
            (
                "presence-foobar",
                Some(r#"{"user_id":10,"user_info":{"name":"Mr. Channels"}}"#),
                "31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80",
            ),
        ] {
            let verifies = |signature: &str, socket_id: &str| {
                secret.verify(&of_subscription(socket_id, channel, data), signature)
            };
            assert!(verifies(signature, "1234.1234"));
            assert!(verifies(&signature.to_uppercase(), "1234.1234"));
            assert!(!verifies(signature, "1234.1235"));
            assert!(!verifies(&signature[..62], "1234.1234"));
            assert!(!verifies("", "1234.1234"));
            assert!(!verifies(&"z".repeat(64), "1234.1234"));
        }
    }

    #[test]
    fn pushers_http_vector() {
        let secret = Secret::new("7ad3773142a6692b25b8");
        let pairs: Vec<Pair<'_>> = [
            ("body_md5", "ec365a775a4cd0599faeb73354201b6f"),
            ("auth_version", "1.0"),
            ("AUTH_KEY", "278d425bdf160c739803"),
            ("auth_signature", "ignored"),
            ("auth_timestamp", "1353088179"),
        ]
        .map(|(k, v)| (k.into(), v.into()))
        .into();
        let query = canonical_query(&pairs);
        assert_eq!(
            query,
            "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0\
             &body_md5=ec365a775a4cd0599faeb73354201b6f"
        );
        assert!(secret.verify(
            &[b"POST\n/apps/3/events\n", query.as_bytes()],
            "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c"
        ));
    }

    #[test]
    fn lists_are_joined_as_phps_sdk_signs_them() {
        let joined = |query: &[(&'static str, &'static str)]| {
            let own =
                |(key, value): &(&'static str, &'static str)| ((*key).into(), (*value).into());
            let pairs: Vec<Pair<'_>> = query.iter().map(own).collect();
            joined_lists(&pairs).map(|pairs| canonical_query_as_sent(&pairs))
        };
        assert_eq!(joined(&[("info", "a"), ("info", "b")]), None);
        assert_eq!(
            joined(&[
                ("info[0]", "b"),
                ("z", "1"),
                ("info[1]", "a"),
                ("auth_key", "k"),
                ("z", "2"),
                ("auth_signature", "s"),
            ]),
            Some("auth_key=k&info=b,a&z=1&z=2".to_owned())
        );
        assert_eq!(joined(&[("info[]", "a")]), Some("info=a".to_owned()));
        for none in ["a[0][1]", "[0]", "a[", "a]", "]a["] {
            assert_eq!(joined(&[(none, "x")]), None, "{none}");
        }
    }

    #[test]
    fn only_hexadecimal_digits_of_the_right_number_are_decoded() {
        assert_eq!(decode_hex("00fFaB19"), Some([0x00, 0xff, 0xab, 0x19]));
        for bad in [
            "",
            "00fFaB1",
            "00fFaB199",
            "00fFaB1g",
            "0x0f0a0b",
            "00fF aB1",
            "\u{e9}0f0a0",
        ] {
            assert_eq!(decode_hex::<4>(bad), None, "{bad}");
        }
        for byte in 0..=u8::MAX {
            assert_eq!(decode_hex(&hex::encode([byte])), Some([byte]));
            let text = String::from_utf8(vec![b'0', byte]);
            let known = hex::decode(text.clone().unwrap_or_default()).is_ok_and(|b| b.len() == 1);
            assert_eq!(
                text.is_ok_and(|text| decode_hex::<1>(&text).is_some()),
                known,
                "{byte}"
            );
        }
    }

    #[test]
    fn a_secret_is_never_printed() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(hidden)");
    }
}
