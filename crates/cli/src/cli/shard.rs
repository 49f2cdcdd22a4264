//! Which part of an archive a task embeds, as a person or a scheduler says it.

use std::str::FromStr;

use anyhow::{Context as _, ensure};
use m3ret::embed::array_task::ArrayTask;

/// The part that `m3ret embed --shard` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShardChoice {
    /// This one.
    Task(ArrayTask),
    /// The one that the scheduler gives this process.
    OfScheduler,
}

impl FromStr for ShardChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::OfScheduler),
            _ => Ok(Self::Task(text.parse()?)),
        }
    }
}

impl ShardChoice {
    /// Returns the part; asks the environment if the scheduler gives it.
    pub(crate) fn task(self) -> anyhow::Result<ArrayTask> {
        match self {
            Self::Task(task) => Ok(task),
            Self::OfScheduler => of_environment(&|name| std::env::var(name).ok()),
        }
    }
}

/// Variables of Slurm and Kubernetes with the number of a task.
const INDICES: [&str; 2] = ["SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX"];
/// Our own, with the number of tasks: schedulers tell how many run now, which is fewer if missing ones are repeated.
const N_TASKS: &str = "M3RET_SHARDS";

fn of_environment(get: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<ArrayTask> {
    let number = |name: &str| -> anyhow::Result<Option<usize>> {
        let Some(text) = get(name) else {
            return Ok(None);
        };
        let number = text.trim().parse().ok();
        let wrong = || format!("--shard auto: found no number in {name}");
        Ok(Some(number.with_context(wrong)?))
    };
    let [slurm, kubernetes] = INDICES.map(number);
    let (slurm, kubernetes) = (slurm?, kubernetes?);
    ensure!(
        slurm.is_none() || kubernetes.is_none(),
        "--shard auto: found both {} and {}, wanted one",
        INDICES[0],
        INDICES[1]
    );
    let index = slurm.or(kubernetes).with_context(|| {
        let [slurm, kubernetes] = INDICES;
        format!(
            "--shard auto: found neither {slurm} nor {kubernetes}; name the part with --shard I/N"
        )
    })?;
    let n_tasks = number(N_TASKS)?;
    let n_tasks = n_tasks.with_context(|| {
        format!("--shard auto: found no {N_TASKS}; set it to the number of tasks, also where some are repeated")
    })?;
    ArrayTask::new(index, n_tasks).map_err(|wanted| {
        anyhow::anyhow!("--shard auto: found task {index} of {N_TASKS}={n_tasks}; {wanted}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedulers_name_the_task_and_we_their_number() {
        let found = |set: &[(&str, &str)]| {
            of_environment(&|name| {
                let found = set.iter().find(|(other, _)| *other == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        let task = ArrayTask::new(3, 8).unwrap();
        let slurm = [("SLURM_ARRAY_TASK_ID", "3"), ("M3RET_SHARDS", "8")];
        assert_eq!(found(&slurm).unwrap(), task);
        let kubernetes = [("JOB_COMPLETION_INDEX", "3"), ("M3RET_SHARDS", "8")];
        assert_eq!(found(&kubernetes).unwrap(), task);
        for (wrong, told) in [
            (&[][..], "neither"),
            (&slurm[..1], "M3RET_SHARDS"),
            (&[slurm[0], kubernetes[0], slurm[1]], "both"),
            (&[("SLURM_ARRAY_TASK_ID", "x"), slurm[1]], "no number"),
            (&[("SLURM_ARRAY_TASK_ID", "8"), slurm[1]], "task 8"),
        ] {
            let error = found(wrong).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
        assert_eq!("auto".parse(), Ok(ShardChoice::OfScheduler));
        assert!("8/8".parse::<ShardChoice>().is_err());
    }
}
