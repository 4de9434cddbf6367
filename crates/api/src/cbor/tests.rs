use super::*;
use crate::value;
use crate::value::Value;
use proptest::prelude::*;

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The examples of RFC 8949, appendix A, as far as they can be an object's; what they are encoded as when that differs.
#[test]
fn the_rfcs_examples() {
    for (given, expected, encoded) in [
        ("00", value!(0), ""),
        ("17", value!(23), ""),
        ("1818", value!(24), ""),
        ("1903e8", value!(1000), ""),
        ("1a000f4240", value!(1_000_000), ""),
        ("1b000000e8d4a51000", value!(1_000_000_000_000i64), ""),
        ("1b7fffffffffffffff", value!(i64::MAX), ""),
        ("3b7fffffffffffffff", value!(i64::MIN), ""),
        ("20", value!(-1), ""),
        ("3903e7", value!(-1000), ""),
        ("f90000", value!(0), "00"),
        ("f98000", value!(0), "00"),
        ("f93e00", value!(1.5), ""),
        ("f97bff", value!(65504), "19ffe0"),
        ("fa47c35000", value!(100_000), "1a000186a0"),
        ("fbc3e0000000000000", value!(i64::MIN), "3b7fffffffffffffff"),
        ("fa5f000000", value!(9_223_372_036_854_775_808.0), ""),
        ("fa7f7fffff", value!(3.402_823_466_385_288_6e38), ""),
        ("fb7e37e43c8800759c", value!(1.0e300), ""),
        ("f90001", value!(5.960_464_477_539_063e-8), ""),
        ("f90400", value!(0.000_061_035_156_25), ""),
        ("f9c400", value!(-4), "23"),
        ("fbc010666666666666", value!(-4.1), ""),
        ("fb3ff199999999999a", value!(1.1), ""),
        ("fa3fc00000", value!(1.5), "f93e00"),
        ("f4", value!(false), ""),
        ("f5", value!(true), ""),
        ("f6", Value::Null, ""),
        ("c074323031332d30332d32315432303a30343a30305a", value!("2013-03-21T20:04:00Z"), "-"),
        ("c11a514b67b0", value!("2013-03-21T20:04:00Z"), "-"),
        ("c1fb41d452d9ec200000", value!("2013-03-21T20:04:00.5Z"), "-"),
        ("c1f9be00", value!("1969-12-31T23:59:58.5Z"), "-"),
        ("d74401020304", value!("01020304"), "-"),
        ("d64401020304", value!("AQIDBA=="), "-"),
        ("d54401fbff04", value!("Afv_BA"), "-"),
        ("d68243010203d74101", value!(["AQID", "01"]), "-"),
        ("d818456449455446", value!("dIETF"), "456449455446"),
        ("40", value!(""), ""),
        ("60", value!(""), "40"),
        ("64f0908591", value!("\u{10151}"), "44f0908591"),
        ("5f42010243030405ff", value!("\u{1}\u{2}\u{3}\u{4}\u{5}"), "450102030405"),
        ("7f657374726561646d696e67ff", value!("streaming"), "4973747265616d696e67"),
        ("41ff", value!("\u{fffd}"), "-"),
        ("80", value!([]), ""),
        ("8301820203820405", value!([1, [2, 3], [4, 5]]), ""),
        ("9f01820203820405ff", value!([1, [2, 3], [4, 5]]), "8301820203820405"),
        ("a0", value!({}), ""),
        ("a24161014162820203", value!({"a": 1, "b": [2, 3]}), ""),
        ("a26162820203416101", value!({"a": 1, "b": [2, 3]}), "a24161014162820203"),
        ("bf6346756ef563416d7421ff", value!({"Amt": (-2), "Fun": true}), "a243416d74214346756ef5"),
        ("d9d9f7a1416101", value!({"a": 1}), "a1416101"),
        ("a2417a0142616102", value!({"aa": 2, "z": 1}), ""),
    ] {
        assert_eq!(decode(&bytes(given)).as_ref(), Ok(&expected), "{given}");
        let mut out = Vec::new();
        write(&expected, None, &mut out);
        match encoded {
            "-" => {}
            "" => assert_eq!(hex(&out), given),
            encoded => assert_eq!(hex(&out), encoded),
        }
    }
}

#[test]
fn what_is_refused() {
    let nested = format!("{}00", "81".repeat(101));
    for (given, why) in [
        ("", "EOF"),
        ("19", "unexpected EOF"),
        ("62", "unexpected EOF"),
        ("9f", "unexpected EOF"),
        ("9b1000000000000000", "unexpected EOF"),
        ("bb1000000000000000", "unexpected EOF"),
        ("5bffffffffffffffff", "unexpected EOF"),
        ("d6", "unexpected EOF"),
        ("a0a0", "cbor: 1 bytes of extraneous data starting at index 1"),
        ("d9d9f7a000", "cbor: 1 bytes of extraneous data starting at index 4"),
        (&nested, "cbor: exceeded max nested level 100"),
        ("1c", "cbor: invalid additional information 28 for type positive integer"),
        ("df", "cbor: invalid additional information 31 for type tag"),
        ("ff", "cbor: unexpected \"break\" code"),
        ("bf4161ff", "cbor: unexpected \"break\" code"),
        ("5f6161ff", "cbor: wrong element type UTF-8 text string for indefinite-length byte string"),
        ("5f5fffff", "cbor: indefinite-length byte string chunk is not definite-length"),
        ("6180", "cbor: invalid UTF-8 string"),
        (
            "1bffffffffffffffff",
            "cbor: cannot unmarshal positive integer into Go value of type int64 (18446744073709551615 overflows Go's int64)",
        ),
        (
            "3bffffffffffffffff",
            "cbor: cannot unmarshal negative integer into Go value of type int64 (-18446744073709551616 overflows Go's int64)",
        ),
        ("a1fb40091eb851eb851f63706965", "cbor: cannot unmarshal primitives into Go value of type string"),
        ("a2414101614102", "cbor: found duplicate map key \"A\" at map element index 1"),
        ("81a3414201414102614203", "cbor: found duplicate map key \"B\" at map element index 2"),
        (
            "a25f426865436c6c6fff015f416844656c6c6fff02",
            "cbor: found duplicate map key \"hello\" at map element index 1",
        ),
        (
            "f7",
            "cbor: data item of cbor type primitives is not accepted by protocol: simple value 23 is not recognized",
        ),
        (
            "f8ff",
            "cbor: data item of cbor type primitives is not accepted by protocol: simple value 255 is not recognized",
        ),
        ("f818", "cbor: invalid simple value 24 for type primitives"),
        ("f97e00", "cbor: data item of cbor type primitives is not accepted by protocol: floating-point NaN"),
        ("faff800000", "cbor: data item of cbor type primitives is not accepted by protocol: floating-point infinity"),
        ("c249010000000000000000", "cbor: data item of cbor type tag is not accepted by protocol: bignum"),
        (
            "c054323030362d30312d30325431353a30343a30355a",
            "cbor: tag number 0 must be followed by text string, got byte string",
        ),
        ("c06474657874", "cbor: cannot set text for time.Time"),
        ("c14100", "cbor: tag number 1 must be followed by integer or floating-point number, got byte string"),
        (
            "c11b0000003afff44181",
            "cbor: decoded time cannot be represented in RFC3339 format with sub-second precision",
        ),
    ] {
        let error = decode(&bytes(given)).unwrap_err().to_string();
        assert!(error.starts_with(why), "{given}: {error}");
    }
}

#[test]
fn every_short_float_is_found() {
    for bits in 0..=u16::MAX {
        let given = [SIMPLE << 5 | HALF, (bits >> 8) as u8, bits as u8];
        let float = match decode(&given) {
            Ok(Value::Float(f)) => f,
            Ok(Value::Int(i)) if bits != 0x8000 => i as f64,
            _ => continue,
        };
        let mut out = Vec::new();
        write(&Value::Float(float), None, &mut out);
        assert_eq!(out, given);
    }
}

#[test]
fn frames() {
    let object = value!({"kind": "X"});
    let frame = watch_frame("ADDED", &object);
    assert_eq!(decode(&frame), Ok(value!({"type": "ADDED", "object": {"kind": "X"}})));
    assert_eq!(frame.windows(3).filter(|w| *w == MAGIC).count(), 2);
    let mut list = list_head("v1", "XList", &value!({"resourceVersion": "7"}), 2);
    (0..2).for_each(|_| write(&object, None, &mut list));
    let expected = value!({"kind": "XList", "apiVersion": "v1", "metadata": {"resourceVersion": "7"}, "items": [object.clone(), object]});
    assert_eq!(decode(&list), Ok(expected));
}

#[test]
fn what_is_bytes_is_written_as_bytes() {
    let secret = value!({"apiVersion": "v1", "kind": "Secret", "data": {"k": "/wAB"}, "stringData": {"k": "/wAB"}});
    let written = encode(&secret);
    assert!(hex(&written).contains("4464617461a1416bd643ff0001"), "{}", hex(&written));
    assert!(hex(&written).contains("737472696e6744617461a1416b442f774142"), "{}", hex(&written));
    assert_eq!(decode(&written), Ok(secret));
}

/// What is not read as an integer.
fn fraction(f: f64) -> bool {
    f.is_finite() && (f.fract() != 0.0 || f.abs() > 1e19)
}

fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter("fraction", |f| fraction(*f)).prop_map(Value::Float),
        any::<f32>().prop_filter("fraction", |f| fraction((*f).into())).prop_map(|f| Value::Float(f.into())),
        "\\PC{0,40}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::Array),
            proptest::collection::vec(("\\PC{0,30}", inner), 0..8)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(value in tree()) {
        let written = encode(&value);
        prop_assert!(written.starts_with(MAGIC));
        prop_assert_eq!(decode(&written), Ok(value));
        prop_assert_eq!(decode(&written[..written.len() - 1]).is_err(), true);
    }

    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(value) = decode(&bytes) {
            prop_assert_eq!(decode(&encode(&value)), Ok(value));
        }
    }
}
