//! The binary `underpin`: reads the command line, has it carried out, ends with a documented exit code.
//!
//! The only program of the product that prints. Nothing else is decided here.

#![allow(clippy::print_stdout, clippy::print_stderr)] // this is the room that prints

mod args;
mod backend;
mod command;
mod exit;
mod logs;
mod person;
mod resolve;
mod signals;
mod ui;

use std::process::ExitCode;

fn main() -> ExitCode {
    match args::Cli::read() {
        Ok(cli) => command::execute(&cli).into(),
        Err(error) => {
            // Help and version go to standard output, complaints to standard error. A reader that
            // went away is no failure.
            let _ = error.print();
            u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
        }
    }
}
