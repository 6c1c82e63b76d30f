//! Documents know their lines, and the text of an environment stays what was written.

use super::*;

fn key(name: &str) -> Step {
    Step::Key(name.to_owned())
}

#[test]
fn paths_lead_to_lines() {
    let node = Node::parse("a: 1\nb:\n  c:\n  - name: x\n    d: 2\n  - name: y\n    d: 3\n").unwrap();
    assert_eq!(node.line_of(&[key("a")]), Some(1));
    assert_eq!(node.line_of(&[key("b"), key("c"), Step::Item(1, None), key("d")]), Some(7));
    let named = |name: &str| [key("b"), key("c"), Step::Item(9, Some(name.to_owned())), key("d")];
    assert_eq!(node.line_of(&named("x")), Some(5));
    assert_eq!(node.line_of(&named("z")), Some(3), "the nearest that is there");
    assert_eq!(node.line_of(&[key("z")]), None);
    assert_eq!(dotted(&named("x")), "b.c[9].d");
}

#[test]
fn variables_are_text_as_it_was_written() {
    let text = "env:\n- {name: A, value: 1.10}\n- {name: B, value: yes}\n- {name: C, value: 0x10}\n- {name: ä, value: 010}\nreplicas: 010\n";
    let node = Node::parse(text).unwrap();
    let values: Vec<_> =
        node.get("env").unwrap().items().iter().map(|item| item.get("value").unwrap().to_value()).collect();
    assert_eq!(values, ["1.10", "yes", "0x10", "010"]);
    assert!(node.get("replicas").unwrap().to_value().is_number());
}

#[test]
fn nulls_and_directives_are_known_and_left_out_of_the_plain_form() {
    let node = Node::parse("a: null\nb: ~\nc: [{$patch: delete, name: x}]\nd: {$patch: replace}\n").unwrap();
    assert_eq!(node.plain(), serde_json::json!({"c": [{"name": "x"}], "d": {}}));
    assert_eq!(node.to_value()["c"][0]["$patch"], "delete");
    assert!(node.to_value()["a"].is_null());
}
