use super::*;

const V1: &str = API_VERSIONS[0];
const V1BETA1: &str = API_VERSIONS[1];

fn answer(change: impl Fn(&mut Value)) -> Value {
    let mut answer = value!({"kind": KIND, "apiVersion": V1,
        "response": {"uid": "u", "result": {"status": "Success"}, "convertedObjects": [{"kind": "A"}]}});
    change(&mut answer);
    answer
}

#[test]
fn answers_are_believed_when_they_answer_the_question() {
    type Change = fn(&mut Value);
    let cases: &[(&str, Change, Result<usize, &str>)] = &[
        (V1, |_| {}, Ok(1)),
        (
            V1,
            |a| a.set("apiVersion", V1BETA1),
            Err(
                "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got apiextensions.k8s.io/v1beta1, Kind=ConversionReview",
            ),
        ),
        (V1, |a| a.set_path(&["response", "uid"], "x"), Err(r#"expected response.uid="u", got "x""#)),
        // The older version says neither what it is nor whom it answers.
        (V1BETA1, |a| a.set_path(&["response", "uid"], "x"), Ok(1)),
        (V1BETA1, |a| a.set("kind", Value::Null), Ok(1)),
        (V1, |a| a.set("response", Value::Null), Err("no response provided")),
        (V1BETA1, |a| *a = value!({}), Err("no response provided")),
        (
            V1,
            |a| a.set_path(&["response", "result"], value!({"status": "Failure", "message": "not now"})),
            Err("not now"),
        ),
        (V1, |a| a.set_path(&["response", "result"], Value::Null), Err("response.result.status was '', not 'Success'")),
        (V1, |a| a.set_path(&["response", "convertedObjects"], Value::Null), Ok(0)),
    ];
    for (version, change, expected) in cases {
        let got = response(version, "u", answer(change)).map(|objects| objects.len());
        assert_eq!(got.as_ref().map_err(|why| why.as_str()), expected.as_ref().map_err(|why| *why), "{version}");
    }
}

fn converted(change: fn(&mut Value)) -> Result<Value, (String, String)> {
    let sent = value!({"apiVersion": "g.io/v1", "kind": "A", "spec": {"old": 1}, "metadata": {
        "name": "n", "namespace": "ns", "uid": "u", "generation": 2, "labels": {"a": "b"}, "annotations": {"c": "d"}}});
    let mut answer = sent.clone();
    answer.set("apiVersion", "g.io/v2");
    answer.set("spec", value!({"new": 1}));
    change(&mut answer);
    let original = Original::of(&sent);
    let why = |alone| checked(&original, answer.clone(), "g.io/v2").map_err(|wrong| wrong.at(3, alone));
    why(true).map_err(|alone| (alone, why(false).unwrap_err()))
}

#[test]
fn only_labels_and_annotations_of_the_metadata_are_converted() {
    let got = converted(|o| {
        let labels = value!({"x": "y"});
        o.set("metadata", value!({"name": "n", "namespace": "ns", "uid": "u", "generation": 7, "labels": labels}));
    });
    let expected = value!({"name": "n", "namespace": "ns", "uid": "u", "generation": 2, "labels": {"x": "y"}});
    let got = got.unwrap();
    assert_eq!(got["metadata"], expected);
    assert_eq!(got["spec"], value!({"new": 1}));
}

#[test]
fn what_a_conversion_may_not_do() {
    type Change = fn(&mut Value);
    let cases: &[(Change, &str, &str)] = &[
        (
            |o| o.set("apiVersion", "g.io/v1"),
            "returned invalid object at index 3: ",
            "invalid groupVersion (expected g.io/v2, received g.io/v1)",
        ),
        (|o| o.set("kind", "B"), "returned invalid object at index 3: ", "invalid kind (expected A, received B)"),
        (|o| o.set_path(&["metadata", "name"], "m"), "returned invalid object: ", "must have the same name: n != m"),
        (
            |o| o.set_path(&["metadata", "namespace"], Value::Null),
            "returned invalid object: ",
            "must have the same namespace: ns != ",
        ),
        (|o| o.set_path(&["metadata", "uid"], "v"), "returned invalid object: ", "must have the same UID: u != v"),
        (
            |o| o.set_path(&["metadata", "labels"], value!({"a": 1})),
            "returned invalid metadata: ",
            "metadata.labels[a] must be a string, but is int64 in converted object",
        ),
        (
            |o| o.set_path(&["metadata", "annotations"], "none"),
            "returned invalid metadata: ",
            "invalid metadata.annotations of type string in converted object",
        ),
        (
            |o| o.set_path(&["metadata", "labels"], value!({"a": "$"})),
            "returned invalid metadata: ",
            "metadata.labels: Invalid value: \"$\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ),
    ];
    for (change, alone, why) in cases {
        let among = match alone.contains("metadata") {
            true => "returned invalid metadata in object at index 3: ",
            false => "returned invalid converted object at index 3: ",
        };
        assert_eq!(converted(*change), Err((format!("{alone}{why}"), format!("{among}{why}"))));
    }
}
