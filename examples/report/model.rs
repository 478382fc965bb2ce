//! Queues in theory: what a policy alone does to latency, with workers that cost nothing but their service.
//!
//! Requests come at random times (Poisson), each on a connection of its own. Under `shared` they wait in one queue, under the
//! others in that of the worker that was chosen when they came.

use bimodal::Scheduling;

use crate::statistics::Random;

/// How many requests are simulated, of which the first tenth does not count.
const REQUESTS: usize = 200_000;

/// What is simulated.
pub(crate) struct Model<'a> {
    pub(crate) policy: Scheduling,
    pub(crate) workers: usize,
    pub(crate) per_second: f64,
    /// The class and the service time, in seconds, of the next request.
    pub(crate) service: &'a dyn Fn(&mut Random) -> (usize, f64),
}

impl Model<'_> {
    /// The latencies of one class, sorted, in seconds.
    pub(crate) fn latencies(&self, class: usize) -> Vec<f64> {
        let mut random = Random::new(7);
        // For each worker, when each of its requests will have left it.
        let mut queues = vec![std::collections::VecDeque::<f64>::new(); self.workers];
        let (mut now, mut found) = (0.0, Vec::new());
        for request in 0..REQUESTS {
            now -= (1.0 - random.unit()).ln() / self.per_second;
            for queue in &mut queues {
                while queue.front().is_some_and(|leaves| *leaves <= now) {
                    queue.pop_front();
                }
            }
            let (of, service) = (self.service)(&mut random);
            let chosen = self.choose(&queues, request, &mut random);
            let begins = queues[chosen].back().map_or(now, |leaves| leaves.max(now));
            queues[chosen].push_back(begins + service);
            if of == class && request >= REQUESTS / 10 {
                found.push(begins + service - now);
            }
        }
        found.sort_by(f64::total_cmp);
        found
    }

    /// The worker of a request. One queue for all is the same as knowing who will be free first.
    fn choose(
        &self,
        queues: &[std::collections::VecDeque<f64>],
        request: usize,
        random: &mut Random,
    ) -> usize {
        let free = |worker: &usize| queues[*worker].back().copied().unwrap_or(0.0);
        let workers = 0..queues.len();
        let chosen = match self.policy {
            Scheduling::RoundRobin => Some(request % queues.len()),
            Scheduling::LeastConnections => workers.min_by_key(|worker| queues[*worker].len()),
            Scheduling::Shared => workers.min_by(|a, b| free(a).total_cmp(&free(b))),
            // A hash of addresses and ports is as good as chance.
            Scheduling::ReusePort => Some(random.below(queues.len())),
        };
        chosen.unwrap_or(0)
    }
}

/// The value at a quantile of sorted values; NaN of none.
pub(crate) fn quantile(sorted: &[f64], part: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
}
