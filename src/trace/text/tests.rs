use super::*;

#[test]
fn words_are_wrapped_within_their_column_and_indented() {
    let lines = wrapped("one two three four five six", 20, 11);
    assert!(lines.iter().all(|line| line.chars().count() <= 20), "{lines:?}");
    assert_eq!(lines[0], "           one two");
    assert!(lines[1].starts_with("             three"), "{lines:?}");
    assert_eq!(wrapped("", 20, 0), [""]);
}
