//! vpnd beside other VPN programs, measured in turn; `bench/README.md` says how.

mod arguments; // what is asked for
mod contender; // who is measured: program, version, or how to get it
mod failure;
mod figure; // what a number means
mod iperf; // TCP
mod machine; // on what, and when
mod micro; // what the steps cost, by criterion
mod packets; // UDP: the highest rate without loss
mod pair; // two hosts on a cable, and a program on each
mod ping; // latency
mod plot; // the record as a picture
mod proc; // what processes cost
mod programs; // how each program is started
mod record; // what was measured
mod report; // what is printed and written at the end
mod rounds; // the loop: each contender in turn
mod stop; // Ctrl-C
mod table; // the record as text
mod target; // the figures to reach
mod work; // what is measured

fn main() -> std::process::ExitCode {
    match rounds::run(&clap::Parser::parse()) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bench: {failure}");
            std::process::ExitCode::FAILURE
        }
    }
}
