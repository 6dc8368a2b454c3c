//! The black-box grader: does a server behave, and if not, why?
//!
//! It knows a program only from outside. For each check it starts the program
//! afresh, waits until it listens, talks to it over TCP or UDP, looks at it in
//! /proc where the system has that, and ends it with all its children.
//!
//! - A [`Check`](check::Check) is a sentence about behaviour, such as
//!   `a lone "0" is data`, with the usual cause of a failure, the section of
//!   the book that explains it, and a function that finds out. All of them
//!   are in [`checks`], a file for each theme.
//! - The [`catalog`] lists the programs of the chapters and the specimens, which
//!   are wrong on purpose, with the [`Traits`](catalog::Traits) that say what
//!   each promises. A check applies to a program if its promise does.
//! - A [`Case`](check::Case) is what a check works with. Its
//!   [`serve`](check::Case::serve) starts a [`Server`](server::Server), hands
//!   it to the check, and makes sure that it lives at the end.
//! - A [`Client`](client::Client) does what clients do, with a deadline on
//!   everything, and explains what went wrong as a
//!   [`Failure`](check::Failure): sent, expected, came. On it,
//!   [`Answers`](http::Answers) reads HTTP; a [`Sender`](datagram::Sender) does
//!   the same over UDP.
//! - A [`Job`](job::Job) is a process group that ends as a whole, even when the
//!   grader is killed.
//! - [`proc`](mod@proc) measures memory, descriptors, and whether a server that
//!   should sleep does; [`fate`] what a signal does to a process, and
//!   [`pipe`] how full its pipes are.
//!
//! To add a check, write it into a file below `checks/` and into that file's
//! `CHECKS`. To add a specimen, write an example of a chapter, and a line into
//! the catalog with the names of the checks that reject it.

#![cfg(unix)]

pub mod budget;
pub mod bytes;
pub mod cargo;
pub mod catalog;
pub mod check;
pub mod checks;
pub mod client;
pub mod datagram;
pub mod fate;
pub mod http;
pub mod job;
pub mod pipe;
pub mod proc;
pub mod program;
pub mod report;
pub mod server;
pub mod transcript;
