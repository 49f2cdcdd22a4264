//! What the run's settings mean for reading: the views of an item, and the object they are cut from.

use m3ret_imaging::{InputConfig, ViewConfig};

use super::student::StudentPlan;
use super::synthetic::PhantomSize;
use crate::config::{Config, Method};
use crate::error::Result;

/// The views of every item, and how objects are scaled for them.
#[derive(Debug, Clone)]
pub(super) struct ViewPlan {
    /// In the order of `Sample::views`.
    pub(super) views: Vec<ViewConfig>,
    /// How `scaled` keeps objects: at up to twice the side and depth of the largest view.
    pub(super) input: InputConfig,
    /// How the student's view differs from that of its teachers, where there are frozen ones.
    pub(super) student: Option<StudentPlan>,
    /// How large synthetic objects are.
    pub(super) phantom: PhantomSize,
}

impl ViewPlan {
    /// # Errors
    /// `Imaging` if a setting of the views makes no sense.
    pub(super) fn new(config: &Config) -> Result<Self> {
        let settings = &config.views;
        let [patch_depth, ..] = config.model_config().vit.patch;
        let [of_first, of_second, of_local] = settings.blur;
        let global = |blur: f64| ViewConfig {
            side: settings.side,
            depth: settings.depth,
            patch_depth,
            area: settings.area,
            aspect: settings.aspect,
            depth_share: settings.depth_share,
            flip: settings.flip,
            jitter: settings.jitter,
            jitter_strength: settings.jitter_strength,
            gamma: settings.gamma,
            blur,
            blur_sigma: settings.blur_sigma,
            noise: settings.noise,
            noise_sigma: settings.noise_sigma,
            colour: settings.colour,
            grey: settings.grey,
            remap: settings.remap,
            project: settings.project,
            slice: settings.slice,
        };
        let local = ViewConfig {
            side: settings.local_side,
            depth: settings.local_depth,
            area: settings.local_area,
            depth_share: settings.local_depth_share,
            ..global(of_local)
        };
        let views = match config.method {
            // What is drawn is the target: crops and flips only, as in the paper, and flat views.
            // What teachers see is the target of a frozen-teacher student.
            Method::Mae | Method::Salt => vec![ViewConfig {
                jitter: 0.0,
                noise: 0.0,
                colour: 0.0,
                grey: 0.0,
                remap: 0.0,
                ..global(0.0)
            }],
            Method::SimDino => {
                let mut views = vec![global(of_first), global(of_second)];
                views.resize(2 + settings.n_local, local);
                views
            }
        };
        let input = InputConfig {
            side: [settings.side; 2],
            max_depth: settings.depth,
            ..config.model_config().input
        };
        views.iter().try_for_each(ViewConfig::validate)?;
        input.validate()?;
        Ok(Self {
            views,
            input,
            student: StudentPlan::of_run(config, global(of_first)),
            phantom: PhantomSize::of_views(settings.side, settings.depth),
        })
    }

    /// Returns the most bytes that the views of one item take.
    pub(super) fn most_bytes(&self) -> u64 {
        let each = self.views.iter().map(|view| {
            let n_values = 3 * view.depth * view.side * view.side;
            n_values as u64 * size_of::<f32>() as u64
        });
        let n_copies = if self.student.is_some() { 2 } else { 1 };
        n_copies * each.sum::<u64>()
    }
}
