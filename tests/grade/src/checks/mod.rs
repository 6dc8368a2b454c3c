//! All checks, a file for each theme.

use crate::catalog::Traits;
use crate::check::Check;

mod crowd;
mod demonstration;
mod echo;
mod echo_client;
mod ending;
mod files;
mod fork;
mod graceful;
mod http;
mod idle;
mod leftovers;
mod limits;
mod patience;
mod pressure;
mod signals;
mod startup;
mod udp;

/// The themes, in the order in which a report shows them.
const THEMES: &[&[Check]] = &[
    startup::CHECKS,
    echo::CHECKS,
    ending::CHECKS,
    patience::CHECKS,
    crowd::CHECKS,
    pressure::CHECKS,
    idle::CHECKS,
    leftovers::CHECKS,
    signals::CHECKS,
    graceful::CHECKS,
    fork::CHECKS,
    demonstration::CHECKS,
    http::CHECKS,
    limits::CHECKS,
    files::CHECKS,
    udp::CHECKS,
    echo_client::CHECKS,
];

/// Every check there is.
pub fn all() -> impl Iterator<Item = &'static Check> {
    THEMES.iter().copied().flatten()
}

/// The checks that apply to a program of these traits.
pub fn applicable(traits: &Traits) -> impl Iterator<Item = &'static Check> {
    all().filter(|check| (check.applies)(traits))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::catalog::CHAPTERS;

    #[test]
    fn names_are_unique_and_every_check_has_a_program() {
        let mut names = HashSet::new();
        for check in all() {
            assert!(names.insert(check.name), "twice: {}", check.name);
            let mut programs = CHAPTERS.iter();
            let used = programs.any(|chapter| (check.applies)(&chapter.traits));
            assert!(used, "applies to nothing: {}", check.name);
        }
    }

    #[test]
    fn every_section_is_a_heading_of_a_chapter() {
        for check in all() {
            let (page, heading) = check.section.split_once('#').expect("page#heading");
            assert!(page.starts_with("ch0") && page.ends_with(".md"), "{page}");
            assert!(!heading.is_empty(), "{}", check.name);
        }
    }
}
