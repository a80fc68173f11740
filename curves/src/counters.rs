//! Names by which programs count their way where they name no step: agents count
//! what they did in their world, large models what they read.
//!
//! They stand in for steps only in logs that name none, and only one of them in one
//! log: two units on one axis would be none.

/// By the last part of a name, the most telling first.
const COUNTERS: [&str; 16] = [
    "total_timesteps",
    "timesteps_total",
    "num_timesteps",
    "timesteps",
    "timestep",
    "num_env_steps_sampled_lifetime",
    "total_env_steps",
    "env_steps",
    "env_step",
    "num_updates",
    "n_updates",
    "training_iteration",
    "tokens_seen",
    "consumed_tokens",
    "consumed_samples",
    "episode",
];

/// How many ranks [`rank`] knows.
pub(crate) const RANKS: usize = COUNTERS.len();

/// The place of a name among the counters; lower is more telling.
pub(crate) fn rank(name: &str) -> Option<usize> {
    let last = name.rsplit('/').next().unwrap_or(name);
    COUNTERS.iter().position(|counter| counter.eq_ignore_ascii_case(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_counts_all_the_way_is_a_counter() {
        for name in ["timesteps", "time/total_timesteps", "timesteps_total", "episode", "Episode", "env_step"]
        {
            assert!(rank(name).is_some(), "{name}");
        }
        for name in
            ["timesteps_this_iter", "episode_reward_mean", "tokens", "episodes_this_iter", "update", "steps"]
        {
            assert_eq!(rank(name), None, "{name}");
        }
        assert!(rank("time/total_timesteps") < rank("episode"));
    }
}
