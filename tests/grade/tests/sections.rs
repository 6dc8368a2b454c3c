//! A failed check sends the reader to a section of the book, which must be there.

use std::fs;
use std::path::Path;

use grade::checks;

#[test]
fn the_section_that_a_check_names_is_in_the_book() {
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../book/en");
    for check in checks::all() {
        let (page, id) = check.section.split_once('#').expect("a page and a heading");
        let text = fs::read_to_string(pages.join(page));
        let text = text.unwrap_or_else(|error| panic!("{}: {page}: {error}", check.name));
        let heading = format!("{{#{id}}}");
        let found = text
            .lines()
            .any(|line| line.starts_with('#') && line.trim_end().ends_with(&heading));
        assert!(found, "{}: {page} has no heading {heading}", check.name);
    }
}
