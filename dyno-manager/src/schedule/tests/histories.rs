//! Any history: random requests, exits, faults and restarts of the daemon, with the promises checked after every step.

mod world;

use proptest::{collection::vec, prelude::*};

use self::world::{Host, wanted_names};
use super::*;

const KINDS: [&str; 3] = ["web", "worker", "clock"];

/// One thing that happens; the numbers pick from what exists at that moment.
#[derive(Debug, Clone)]
enum Happening {
    Create(usize),
    Destroy(usize),
    Release {
        app: usize,
        quantities: [u32; 3],
        in_slug: [bool; 3],
    },
    Scale {
        app: usize,
        quantities: [u32; 3],
        large: bool,
    },
    Run(usize),
    Restart {
        app: usize,
        which: Which,
    },
    Stop {
        app: usize,
        which: Which,
    },
    Started(usize),
    Bound(usize),
    StartFailed(usize),
    Exited(usize, ExitCause),
    /// Something is told of a launch that may be long gone.
    Echo(usize),
    Wait(u64),
    /// Nobody visits the app.
    Quiet(usize),
    /// Somebody does.
    Visited(usize),
    /// The daemon dies and comes back; `dies` picks a dyno that ends while it loads.
    NewDaemon {
        dies: usize,
    },
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening as H;
    let app = 0..2usize;
    let pick = 0..64usize;
    let quantities = [0..4u32, 0..3u32, 0..2u32];
    let cause = prop::sample::select(vec![ExitCause::Exited, ExitCause::Memory, ExitCause::Lost, ExitCause::Stopped]);
    prop_oneof![
        1 => app.clone().prop_map(H::Create),
        1 => app.clone().prop_map(H::Destroy),
        4 => (app.clone(), quantities.clone(), any::<[bool; 3]>()).prop_map(|(app, quantities, in_slug)| H::Release { app, quantities, in_slug }),
        4 => (app.clone(), quantities, any::<bool>()).prop_map(|(app, quantities, large)| H::Scale { app, quantities, large }),
        2 => app.clone().prop_map(H::Run),
        2 => (app.clone(), any_which()).prop_map(|(app, which)| H::Restart { app, which }),
        2 => (app.clone(), any_which()).prop_map(|(app, which)| H::Stop { app, which }),
        3 => app.clone().prop_map(H::Quiet),
        3 => app.prop_map(H::Visited),
        8 => pick.clone().prop_map(H::Started),
        6 => pick.clone().prop_map(H::Bound),
        1 => pick.clone().prop_map(H::StartFailed),
        8 => (pick.clone(), cause).prop_map(|(pick, cause)| H::Exited(pick, cause)),
        1 => pick.clone().prop_map(H::Echo),
        6 => prop::sample::select(vec![0, 100, 999, 1000, 5_000, 30_000, 61_000, 400_000]).prop_map(H::Wait),
        2 => pick.prop_map(|dies| H::NewDaemon { dies }),
    ]
}

fn any_which() -> impl Strategy<Value = Which> {
    prop::sample::select(vec!["all", "web", "worker.1", "web.2", "run", "run.1"]).prop_map(which)
}

fn app_id(index: usize) -> Uuid {
    Uuid::from_u128(0xa0 + index as u128)
}

fn play(history: &[Happening]) -> Host {
    let mut host = Host::new();
    host.happen(Happening::Create(0));
    for what in history {
        host.happen(what.clone());
    }
    host
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happened, once all is quiet the formation runs, all of it and nothing else (one-offs apart).
    #[test]
    fn every_history_settles_on_what_is_wanted(history in vec(happening(), 0..80)) {
        let mut host = play(&history);
        for app in 0..2 {
            host.happen(Happening::Visited(app));
        }
        host.settle();
        for (app_id, desired) in &host.desired {
            let dynos = host.state.dynos(*app_id);
            prop_assert!(dynos.iter().all(|d| d.state == DynoState::Up), "{dynos:?}");
            let running: Vec<_> = dynos.iter().filter(|d| d.kind == DynoKind::Formation).map(|d| d.name.to_string()).collect();
            prop_assert_eq!(running, wanted_names(desired));
        }
        prop_assert!(host.processes.values().all(|p| host.desired.contains_key(&p.dyno.app_id)));
    }

    /// The same history has the same outcome, to the letter.
    #[test]
    fn a_history_can_be_replayed(history in vec(happening(), 0..60)) {
        prop_assert_eq!(play(&history).record, play(&history).record);
    }
}
