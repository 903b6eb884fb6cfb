use super::*;

#[test]
fn words_are_wrapped_within_their_column_and_indented() {
    let lines = wrapped("one two three four five six", 20, 11);
    assert!(lines.iter().all(|line| line.chars().count() <= 20), "{lines:?}");
    assert_eq!(lines[0], "           one two");
    assert!(lines[1].starts_with("             three"), "{lines:?}");
    assert_eq!(wrapped("", 20, 0), [""]);
}

#[test]
fn the_end_of_a_base_chain_is_left_to_its_policy() {
    let rule = |chain: &str, step, verdict: &str| Rule {
        family: "inet".to_owned(),
        table: "t".to_owned(),
        chain: chain.to_owned(),
        step,
        handle: None,
        text: None,
        verdict: verdict.to_owned(),
    };
    let mut station = Station::new(0, Walk::Inner, Direction::Out, Place::Output, Verdict::Passed);
    station.rules = vec![rule("output", Step::Rule, "continue"), rule("output", Step::Policy, "accept")];
    assert_eq!(facts(&station), ["the policy of chain output of table inet t → accept"]);
    // Of another chain, and of one whose policy nobody told, it says what happened.
    station.rules = vec![
        rule("other", Step::Rule, "continue"),
        rule("output", Step::Policy, "accept"),
        rule("output", Step::Rule, "continue"),
    ];
    assert_eq!(facts(&station).len(), 3);
}
