//! The scheduler: tasks, virtual time, and one loop. Which task runs next follows from the seed alone.
//!
//! A task is a future that pauses at each scheduling point; nothing else ever makes it wait. There is
//! no reactor and no waker: the loop takes the task whose pause ends first. Owns no idea of what the
//! tasks do; the calamities that end them come in through `World`.

use std::cell::{RefCell, RefMut};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::world::World;

/// Who a task works for; tells which ones a crash ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Starts and restarts everything else.
    Director,
    /// The program that runs the machine.
    Runner,
    /// Sends commands and readings; meddles with the table.
    Chaos,
    /// One statement sequence of ours on the server.
    Session,
    /// A client of the application.
    Writer,
}

/// A task that waits to be taken up by the loop.
pub(crate) struct NewTask {
    pub(crate) owner: Owner,
    pub(crate) future: Pin<Box<dyn Future<Output = ()>>>,
}

struct Task {
    owner: Owner,
    wake_us: u64,
    future: Pin<Box<dyn Future<Output = ()>>>,
}

/// The world as tasks hold it. Never borrowed across a pause.
#[derive(Clone)]
pub(crate) struct Ctx(Rc<RefCell<World>>);

impl Ctx {
    pub(crate) fn new(world: World) -> Self {
        Self(Rc::new(RefCell::new(world)))
    }

    /// The world, for one instant.
    pub(crate) fn world(&self) -> RefMut<'_, World> {
        self.0.borrow_mut()
    }

    /// A scheduling point: others may run before this task goes on, `delay_us` later.
    pub(crate) fn pause(&self, delay_us: u64) -> Pause {
        self.world().delay_us = delay_us;
        Pause { passed: false }
    }

    /// A scheduling point of random length.
    pub(crate) fn step(&self) -> Pause {
        let delay_us = self.world().latency_us();
        self.pause(delay_us)
    }

    /// A scheduling point of somebody who waits for a lock and looks again later.
    pub(crate) fn wait(&self) -> Pause {
        let delay_us = self.world().dice.between(500, 15_000);
        self.pause(delay_us)
    }

    /// Starts a task.
    pub(crate) fn spawn(&self, owner: Owner, future: impl Future<Output = ()> + 'static) {
        self.world().spawned.push(NewTask { owner, future: Box::pin(future) });
    }

    /// A line for the event log; not made where nobody reads it.
    pub(crate) fn note(&self, text: impl FnOnce() -> String) {
        self.world().note(text);
    }
}

/// Ready when it is polled for the second time.
#[derive(Debug)]
pub(crate) struct Pause {
    passed: bool,
}

impl Future for Pause {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.passed, true) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Something that ends tasks from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Calamity {
    /// The program that runs the machine is killed.
    RunnerCrash,
    /// The server dies and comes back at once.
    ServerCrash,
}

/// Runs until the director has ended, a breach was found, or `steps_max` is passed. Returns the steps.
pub(crate) fn run(ctx: &Ctx, steps_max: u64) -> u64 {
    let mut tasks: Vec<Task> = Vec::new();
    let mut context = Context::from_waker(Waker::noop());
    let mut steps = 0;
    take_up(ctx, &mut tasks);
    while steps < steps_max {
        let next = tasks.iter().enumerate().min_by_key(|(_, task)| task.wake_us);
        let Some(at) = next.map(|(at, _)| at) else { break };
        let Some(task) = tasks.get_mut(at) else { break };
        {
            let mut world = ctx.world();
            world.now_us = std::cmp::max(world.now_us, task.wake_us);
            world.delay_us = 0;
        }
        let polled = task.future.as_mut().poll(&mut context);
        steps += 1;
        task.wake_us = {
            let world = ctx.world();
            world.now_us + world.delay_us
        };
        if polled.is_ready() && tasks.swap_remove(at).owner == Owner::Director {
            break;
        }
        // Before any calamity: it must meet the new tasks too.
        take_up(ctx, &mut tasks);
        let calamity = ctx.world().after_step(steps);
        if let Some(calamity) = calamity {
            strike(ctx, &mut tasks, calamity);
        }
        if ctx.world().checker.breach().is_some() {
            break;
        }
        take_up(ctx, &mut tasks);
        wake(ctx, &mut tasks);
    }
    steps
}

fn take_up(ctx: &Ctx, tasks: &mut Vec<Task>) {
    let mut world = ctx.world();
    let new: Vec<NewTask> = world.spawned.drain(..).collect();
    for NewTask { owner, future } in new {
        let wake_us = world.now_us + world.latency_us();
        tasks.push(Task { owner, wake_us, future });
    }
}

/// Ends the tasks that the calamity ends, and tells the world.
fn strike(ctx: &Ctx, tasks: &mut Vec<Task>, calamity: Calamity) {
    tasks.retain(|task| match calamity {
        Calamity::RunnerCrash => task.owner != Owner::Runner,
        Calamity::ServerCrash => !matches!(task.owner, Owner::Session | Owner::Writer),
    });
    match calamity {
        Calamity::RunnerCrash => ctx.world().runner_crashed(),
        Calamity::ServerCrash => {
            ctx.world().server_crashed();
            crate::writers::start(ctx);
        }
    }
}

fn wake(ctx: &Ctx, tasks: &mut [Task]) {
    let mut world = ctx.world();
    let woken: Vec<Owner> = world.woken.drain(..).collect();
    for task in tasks.iter_mut().filter(|task| woken.contains(&task.owner)) {
        task.wake_us = std::cmp::min(task.wake_us, world.now_us + world.latency_us());
    }
}
