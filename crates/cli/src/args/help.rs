//! The long help texts: what a person reads at three in the morning.
//!
//! Owns the prose around the options. The numbers of the exit codes are [`crate::exit`]'s; a test
//! holds the two together.

/// What the program is.
pub(super) const TOP_ABOUT: &str = "\
Change a MySQL, MariaDB or PostgreSQL table while it is in use.

underpin copies the table into a shadow in the new shape, keeps the two equal while the \
application goes on writing, compares them, and swaps them at one moment. The original is not \
written to; until the swap `underpin abort` leaves it as it was. A run that is interrupted, \
killed or cut off goes on where it was when the same command is given again.";

/// The short end of `-h`.
pub(super) const TOP_AFTER_SHORT: &str = "\
Examples and exit codes: underpin --help";

/// Examples and exit codes.
pub(super) const TOP_AFTER: &str = "\
Examples:
  See what would happen:
    underpin plan mysql://admin@db1/shop 'ALTER TABLE orders MODIFY id BIGINT NOT NULL AUTO_INCREMENT'
  Do it:
    underpin run mysql://admin@db1/shop 'ALTER TABLE orders MODIFY id BIGINT NOT NULL AUTO_INCREMENT'
    underpin run postgres://admin@db2/shop 'ALTER TABLE sales.orders ALTER id TYPE bigint'
  What is going on, and how to steer and end it:
    underpin status mysql://admin@db1
    underpin pause mysql://admin@db1/shop orders
    underpin set mysql://admin@db1/shop orders max-lag=5s nice=50%
    underpin resume mysql://admin@db1/shop orders
    underpin verify mysql://admin@db1/shop orders
    underpin abort mysql://admin@db1/shop orders
    underpin abort postgres://admin@db2/shop sales.orders

Password: in MYSQL_PWD or an option file, in PGPASSWORD or ~/.pgpass; in the URL other users of this
machine can see it.

Standard output holds what was asked for (plan, list, JSON events, result); standard error holds \
progress, questions and errors.

Exit codes:
    0  done
    1  failed safely: the table is as it was, or the swap was complete before the failure
    2  the command line is wrong; nothing was contacted
    3  refused before anything was created: by preflight, by the server (log-in, rights, statement),
       by an unfinished run in the way, or by the answer to the question
    4  unclear what the server did: a person must look; the message says at what
    5  verification found a difference; nothing was swapped for it
    6  the table's lock was not had in the time allowed; nothing was swapped
  130  interrupted; the same command goes on";

/// What a URL is.
pub(super) const URL: &str = "\
The database: mysql://USER@HOST:PORT/DATABASE (mariadb:// is the same) or \
postgres://USER@HOST:PORT/DATABASE (postgresql:// is the same, and so is 'host=… dbname=…')

MySQL, MariaDB: every part may be left out and comes from the option files then: mysql:// alone is the server of \
~/.my.cnf. Parameters follow a question mark: \
mysql://admin@db1/shop?ssl-mode=verify-ca&ssl-ca=/etc/ssl/db.pem, ?socket=/run/mysqld/mysqld.sock, \
?connect-timeout-ms=5000.

PostgreSQL: parameters, the PG* variables, ~/.pgpass and pg_service.conf mean what they mean to psql, \
as in postgres://admin@db2/shop?sslmode=verify-full&sslrootcert=/etc/ssl/db.pem&connect_timeout=5. One \
host is named, the primary's. Tables without a schema are those of public.

Better leave the password out: other users of this machine can see the command line. MYSQL_PWD, \
PGPASSWORD and the files are not seen by them.";

/// About `plan`.
pub(super) const PLAN_ABOUT: &str = "\
Show how a change would be made and what stands in its way; changes nothing.

Connects, looks at the table, the server, its replicas and the account's privileges, and prints how \
the change would be made, what it touches, and every finding with its remedy. The server itself \
judges the statement, on an empty scratch copy of the table that is gone at once.

Ends with 0 where the change can be made, with 3 where it is refused.";

/// Examples of `plan`.
pub(super) const PLAN_AFTER: &str = "\
Examples:
  underpin plan mysql://admin@db1/shop 'ALTER TABLE orders ADD COLUMN note VARCHAR(200)'
  underpin plan mysql://admin@db1/shop --file change.sql
  git show HEAD:change.sql | underpin plan mysql://admin@db1/shop - --output json";

/// About `run`.
pub(super) const RUN_ABOUT: &str = "\
Make a change, or go on with one that was interrupted.

Shows the plan and asks before it begins; --yes goes on without asking. While it runs, the \
application reads and writes the table as ever; it is held up twice for a moment, when capture \
begins and at the swap, never longer than --lock-timeout and --swap-budget.

Ctrl-C (or SIGTERM) stops at the next boundary; a second one stops waiting for it. Either way the \
same command goes on where the run was: chunks that were copied are not copied again. Options such \
as --workers may differ then; the statement may not.

A change that the server makes at once, without a copy, is made by the server; --strategy shadow \
copies all the same.";

/// Examples of `run`.
pub(super) const RUN_AFTER: &str = "\
Examples:
  Widen a key, asking first:
    underpin run mysql://admin@db1/shop 'ALTER TABLE orders MODIFY id BIGINT NOT NULL AUTO_INCREMENT'
  From a script, with events for a program:
    underpin run mysql://admin@db1/shop --file change.sql --yes --output json
  Gently, and watching a replica that the server does not list:
    underpin run mysql://admin@db1/shop --file change.sql \\
        --workers 1 --chunk-time 100ms --max-lag 500ms --replica mysql://admin@db2
  At noon: give way to load, copy by half the time, swap at night:
    underpin run mysql://admin@db1/shop --file change.sql --yes --nice 50% \\
        --max-load running=40 --max-load write-latency=20ms \\
        --swap-window 'mon-fri 02:00-05:00 Europe/Berlin' --reason 'wider ids' --ticket OPS-4711

Exit codes: see underpin --help";

/// About `status`.
pub(super) const STATUS_ABOUT: &str = "\
Show runs that are not finished, how they fare, and how they go on.

Shows for each its table, whether a program works on it, its phase, how far it is and why it waits; \
with a TABLE its signals and settings too. Where nobody works on it: since when, and the command that \
goes on with it.";

/// Examples of `status`.
pub(super) const STATUS_AFTER: &str = "\
Examples:
  underpin status mysql://admin@db1
  underpin status mysql://admin@db1/shop orders --watch
  underpin status mysql://admin@db1/shop orders --json";

/// About `list`.
pub(super) const LIST_ABOUT: &str = "\
List all runs that the server remembers, the newest first, at most a hundred.

On PostgreSQL these are the runs of the database that the URL names.";

/// Examples of `list`.
pub(super) const LIST_AFTER: &str = "\
Example:
  underpin list mysql://admin@db1";

/// About `history`.
pub(super) const HISTORY_ABOUT: &str = "\
Show what was done: statements, who, when, why, with which result.

Every run is kept: its statement, the table's definition before and after as a hash, who began it with \
which options, reason, ticket and approval, every order that was given to it, and what it did.";

/// Examples of `history`.
pub(super) const HISTORY_AFTER: &str = "\
Examples:
  underpin history mysql://admin@db1
  underpin history postgres://admin@db2/shop sales.orders --json";

/// About `pause`.
pub(super) const PAUSE_ABOUT: &str = "\
Have a run begin nothing new until it is resumed.

Takes effect within a second, from any machine with access to the server. What is under way ends first; \
a paused run holds no lock and no snapshot. Changes of the application are still captured, and applied \
where the log grows long. It stays paused when its program is started again.";

/// Examples of `pause`.
pub(super) const PAUSE_AFTER: &str = "\
Example:
  underpin pause mysql://admin@db1/shop orders";

/// About `resume`.
pub(super) const RESUME_ABOUT: &str = "\
Let a paused run go on; where its program is dead, go on with it here.

Where a program works on the run, it takes the order within a second. Where none does, this command goes \
on with the run itself, with the options that it began with; those given here count before them. It \
will not be paused any more. A run that was reverted is only made again with --again.";

/// Examples of `resume`.
pub(super) const RESUME_AFTER: &str = "\
Examples:
  underpin resume mysql://admin@db1/shop orders
  underpin resume mysql://admin@db1/shop orders --again   after a revert";

/// About `revert`.
pub(super) const REVERT_ABOUT: &str = "\
Take a made change back: the old table returns, with everything that was written since.

For runs with --finish keep, until `underpin finish`. What was written to the new table since the swap is \
applied to the old one while the application goes on, both are compared, and they are exchanged with \
the same short lock as in the swap. Columns that only the old table has keep the values they had. A value \
that the old table cannot hold stops this before its swap: the new table stays, nothing is lost. \
Interrupted, the same command goes on; `underpin abort` leaves the new table where it is.";

/// Examples of `revert`.
pub(super) const REVERT_AFTER: &str = "\
Examples:
  underpin revert mysql://admin@db1/shop orders
  underpin resume mysql://admin@db1/shop orders --again   makes the change again
  underpin finish mysql://admin@db1/shop orders           keeps the old table for good";

/// About `finish`.
pub(super) const FINISH_ABOUT: &str = "\
End a run whose swap is made: remove the way back and the table that is not live.

After this there is no way back. With --keep-retired the table that is not live stays under its other \
name, without triggers.";

/// Examples of `finish`.
pub(super) const FINISH_AFTER: &str = "\
Example:
  underpin finish mysql://admin@db1/shop orders";

/// About `swap`.
pub(super) const SWAP_ABOUT: &str = "\
Let a run that waits for it make its swap.

For runs with --swap wait or --swap window: the swap is tried as soon as everything is ready. A hook that \
holds it back (--hook-veto) is still asked.";

/// Examples of `swap`.
pub(super) const SWAP_AFTER: &str = "\
Example:
  underpin swap mysql://admin@db1/shop orders";

/// About `set`.
pub(super) const SET_ABOUT: &str = "\
Change limits of a run while it goes on.

Names and values are those of the options of `underpin run`: max-lag, max-load, critical-load, nice, \
rate, workers (not more than the run began with), chunk-time; `off` takes away a rate or a limit. Takes \
effect within a second, and stays when the program is started again, unless the option is given there.";

/// Examples of `set`.
pub(super) const SET_AFTER: &str = "\
Examples:
  underpin set mysql://admin@db1/shop orders max-lag=5s nice=50%
  underpin set mysql://admin@db1/shop orders max-load=running=50 rate=off";

/// About `abort`.
pub(super) const ABORT_ABOUT: &str = "\
End an unfinished run and remove everything of it; the table stays as it is.

Where a program works on the run, it is asked to end it; otherwise this command removes shadow, \
change log and triggers itself. Rows of the table are never touched. After the swap the change is \
made and there is nothing to abort (exit code 3); the same `underpin run` removes what is left over.";

/// Clap would put the statement before the URL.
pub(super) const PLAN_USAGE: &str = "underpin plan [OPTIONS] <URL> <STATEMENT|-|--file PATH>";

/// As above.
pub(super) const RUN_USAGE: &str = "underpin run [OPTIONS] <URL> <STATEMENT|-|--file PATH>";

/// Examples of `abort`.
pub(super) const ABORT_AFTER: &str = "\
Example:
  underpin abort mysql://admin@db1/shop orders";
