//! Whether settings make sense, and together.

use m3ret_encoder::hog;

use super::{Config, MaeSettings, MaeTarget, Method};
use crate::error::{Error, Result};

/// The most a run may ask of one number, so that no product of sizes overflows.
const MOST: usize = 1 << 20;

/// A rule: whether it holds, the setting, what it may be, what it is.
type Rule = (bool, &'static str, &'static str, String);

impl Config {
    /// Checks every setting.
    ///
    /// # Errors
    /// `Config` naming the first setting that makes no sense.
    pub fn validate(&self) -> Result<()> {
        let rules = [
            self.rules_of_images(),
            self.rules_of_views(),
            self.rules_of_methods(),
            self.rules_between_methods(),
            self.rules_of_salt(),
            self.rules_of_training(),
        ];
        let broken = rules.into_iter().flatten().find(|(holds, ..)| !holds);
        if let Some((_, setting, expected, found)) = broken {
            return Err(Error::config(setting, expected, found));
        }
        if let Some(preset) = &self.model.preset
            && m3ret_encoder::VitConfig::named(preset).is_none()
        {
            let known = "tiny, small, base or large";
            return Err(Error::config("model.preset", known, preset));
        }
        if self.awaits_init() {
            return Ok(());
        }
        let model = self.model_config();
        let most = model.vit.embed_dim / 2;
        if self.model.directions_out > most {
            let expected = format!("at most half of the width, {most}");
            let found = self.model.directions_out.to_string();
            return Err(Error::config("model.directions_out", expected, found));
        }
        Ok(model.validate()?)
    }

    /// Returns whether the folder of `init` still decides sizes: what depends on them is checked once it
    /// has been read and they are filled in.
    fn awaits_init(&self) -> bool {
        self.init.is_some() && (self.model.patch.is_none() || self.model.embed_dim.is_none())
    }

    fn rules_of_images(&self) -> Vec<Rule> {
        let images = &self.images;
        vec![
            (
                !self.out.as_os_str().is_empty(),
                "out",
                "a folder",
                "nothing".to_owned(),
            ),
            (
                (0.0..=1.0).contains(&self.model.whitening),
                "model.whitening",
                "a number from 0 to 1",
                self.model.whitening.to_string(),
            ),
            (
                !self.manifests.is_empty(),
                "manifests",
                "at least one manifest",
                "none".to_owned(),
            ),
            (
                (0.0..=0.5).contains(&images.validation),
                "images.validation",
                "a share from 0 to 0.5",
                images.validation.to_string(),
            ),
            (
                (0.0..=1.0).contains(&images.temperature),
                "images.temperature",
                "a number from 0 to 1",
                images.temperature.to_string(),
            ),
            (
                (0.0..=0.5).contains(&images.synthetic),
                "images.synthetic",
                "a share from 0 to 0.5",
                images.synthetic.to_string(),
            ),
            count(images.readers + 1, "images.readers", "0 to 511", 512),
            (
                (16..=MOST).contains(&images.memory_mib),
                "images.memory_mib",
                "16 or more",
                images.memory_mib.to_string(),
            ),
        ]
    }

    /// Settings of one method that another method would ignore.
    fn rules_between_methods(&self) -> Vec<Rule> {
        let usual = MaeSettings::default();
        vec![
            (
                self.method == Method::Mae || self.mae.target == usual.target,
                "mae.target",
                "its default, as the method is not mae",
                "another target".to_owned(),
            ),
            (
                self.method == Method::Salt || self.salt.teachers.is_empty(),
                "salt.teachers",
                "none, as the method is not salt",
                format!("{} folders", self.salt.teachers.len()),
            ),
            (
                self.method == Method::Salt || self.salt.changed == 0.0,
                "salt.changed",
                "0, as the method is not salt",
                self.salt.changed.to_string(),
            ),
        ]
    }

    fn rules_of_views(&self) -> Vec<Rule> {
        let views = &self.views;
        let chances = [
            ("views.flip", views.flip),
            ("views.jitter", views.jitter),
            ("views.noise", views.noise),
            ("views.colour", views.colour),
            ("views.grey", views.grey),
            ("views.remap", views.remap),
            ("views.project", views.project),
            ("views.slice", views.slice),
            ("views.jitter_strength", views.jitter_strength),
            ("views.blur", views.blur[0]),
            ("views.blur", views.blur[1]),
            ("views.blur", views.blur[2]),
        ];
        let shares = [
            ("views.area", views.area, 1.0),
            ("views.local_area", views.local_area, 1.0),
            ("views.depth_share", views.depth_share, 1.0),
            ("views.local_depth_share", views.local_depth_share, 1.0),
            ("views.aspect", views.aspect, 16.0),
            ("views.gamma", views.gamma, 16.0),
        ];
        let widths = [
            ("views.blur_sigma", views.blur_sigma, 16.0),
            ("views.noise_sigma", views.noise_sigma, 1.0),
        ];
        let chances = chances.into_iter().map(|(setting, value)| {
            let holds = (0.0..=1.0).contains(&value);
            (holds, setting, "a number from 0 to 1", value.to_string())
        });
        let shares = shares.into_iter().map(|(setting, interval, most)| {
            let [low, high] = interval;
            let holds = 0.0 < low && low <= high && high <= most;
            let expected = "[low, high] with 0 < low <= high";
            (holds, setting, expected, format!("{interval:?}"))
        });
        let widths = widths.into_iter().map(|(setting, interval, most)| {
            let [low, high] = interval;
            let holds = 0.0 <= low && low <= high && high <= most;
            let expected = "[low, high] with 0 <= low <= high";
            (holds, setting, expected, format!("{interval:?}"))
        });
        let sides = self.rules_of_sides().into_iter();
        let mut rules: Vec<Rule> = sides.chain(chances).chain(shares).chain(widths).collect();
        let n_local = views.n_local;
        rules.push((
            n_local <= 64,
            "views.n_local",
            "0 to 64",
            n_local.to_string(),
        ));
        rules
    }

    /// Views divide into patches; small ones only where there are some.
    fn rules_of_sides(&self) -> Vec<Rule> {
        let views = &self.views;
        let patch = if self.awaits_init() {
            [1; 3]
        } else {
            self.model_config().vit.patch.map(|side| side.max(1))
        };
        let [pd, ph, pw] = patch;
        let large = [
            ("views.side", views.side, ph, pw),
            ("views.depth", views.depth, pd, pd),
        ];
        let small = [
            ("views.local_side", views.local_side, ph, pw),
            ("views.local_depth", views.local_depth, pd, pd),
        ];
        let has_small = self.method == Method::SimDino && views.n_local > 0;
        let sides = large
            .into_iter()
            .chain(small.into_iter().filter(|_| has_small));
        let rules = sides.map(|(setting, n, a, b)| {
            let holds = (1..=MOST).contains(&n) && n.is_multiple_of(a) && n.is_multiple_of(b);
            let found = format!("{n}, with patches of {patch:?}");
            (holds, setting, "a multiple of the patch", found)
        });
        rules.collect()
    }

    #[allow(clippy::too_many_lines, reason = "a table, one row a setting")]
    fn rules_of_methods(&self) -> Vec<Rule> {
        let (mae, simdino) = (&self.mae, &self.simdino);
        let ratio = |ratio: f64| 0.0 < ratio && ratio < 1.0;
        let [low, high] = simdino.patch_mask;
        let width = mae.decoder_dim;
        let vit = self.model_config().vit;
        let patch = vit.patch.map(|side| side.max(1));
        let [_, ph, pw] = patch;
        let n_cells = (self.views.side / ph).saturating_mul(self.views.side / pw);
        vec![
            (
                self.method == Method::SimDino || n_cells > 1,
                "views.side",
                "two patches or more: some are hidden and some are shown",
                self.views.side.to_string(),
            ),
            (
                ratio(mae.mask_ratio),
                "mae.mask_ratio",
                "a share between 0 and 1",
                mae.mask_ratio.to_string(),
            ),
            (
                ratio(mae.mask_ratio_deep),
                "mae.mask_ratio_deep",
                "a share between 0 and 1",
                mae.mask_ratio_deep.to_string(),
            ),
            (
                (10..=16_384).contains(&width) && width.is_multiple_of(2),
                "mae.decoder_dim",
                "an even number in 10..=16384",
                width.to_string(),
            ),
            (
                mae.decoder_heads > 0 && width.is_multiple_of(mae.decoder_heads),
                "mae.decoder_heads",
                "a divisor of mae.decoder_dim",
                mae.decoder_heads.to_string(),
            ),
            count(
                mae.decoder_hidden.unwrap_or(1),
                "mae.decoder_hidden",
                "1 to 65536",
                65_536,
            ),
            count(mae.decoder_depth, "mae.decoder_depth", "1 to 1024", 1024),
            (
                self.awaits_init()
                    || self.method != Method::Mae
                    || mae.target == MaeTarget::Pixels
                    || hog::has_cells(patch),
                "mae.target",
                "pixels, or patches of even height and width: gradients are summed over 2 x 2 cells",
                format!("{:?}, with patches of {patch:?}", mae.target).to_lowercase(),
            ),
            count(
                simdino.head_hidden,
                "simdino.head_hidden",
                "1 to 65536",
                65_536,
            ),
            (
                (2..=4096).contains(&simdino.head_out),
                "simdino.head_out",
                "2 to 4096",
                simdino.head_out.to_string(),
            ),
            (
                simdino.eps > 0.0 && simdino.eps.is_finite(),
                "simdino.eps",
                "a number above 0",
                simdino.eps.to_string(),
            ),
            (
                simdino.coeff >= 0.0 && simdino.coeff.is_finite(),
                "simdino.coeff",
                "0 or more",
                simdino.coeff.to_string(),
            ),
            (
                simdino.expa_type <= 1,
                "simdino.expa_type",
                "0 or 1",
                simdino.expa_type.to_string(),
            ),
            (
                (0.0..=1.0).contains(&simdino.momentum),
                "simdino.momentum",
                "a number from 0 to 1",
                simdino.momentum.to_string(),
            ),
            (
                simdino.patch_weight >= 0.0 && simdino.patch_weight.is_finite(),
                "simdino.patch_weight",
                "0 or more",
                simdino.patch_weight.to_string(),
            ),
            (
                simdino.patch_weight == 0.0 || vit.stem.is_patch(),
                "simdino.patch_weight",
                "0 with model.stem = conv, whose kernels see into masked patches",
                simdino.patch_weight.to_string(),
            ),
            (
                0.0 < low && low <= high && high < 1.0,
                "simdino.patch_mask",
                "[low, high] with 0 < low <= high < 1",
                format!("{:?}", simdino.patch_mask),
            ),
        ]
    }

    fn rules_of_salt(&self) -> Vec<Rule> {
        let salt = &self.salt;
        let ratio = |ratio: f64| 0.0 < ratio && ratio < 1.0;
        let n_teachers = salt.teachers.len();
        vec![
            (
                self.method != Method::Salt || (1..=2).contains(&n_teachers),
                "salt.teachers",
                "one or two model folders that m3ret trained",
                n_teachers.to_string(),
            ),
            (
                ratio(salt.mask_ratio),
                "salt.mask_ratio",
                "a share between 0 and 1",
                salt.mask_ratio.to_string(),
            ),
            (
                ratio(salt.mask_ratio_deep),
                "salt.mask_ratio_deep",
                "a share between 0 and 1",
                salt.mask_ratio_deep.to_string(),
            ),
            (
                (0.0..=1.0).contains(&salt.changed),
                "salt.changed",
                "a number from 0 to 1",
                salt.changed.to_string(),
            ),
        ]
    }

    #[allow(clippy::too_many_lines, reason = "a table, one row a setting")]
    fn rules_of_training(&self) -> Vec<Rule> {
        let (train, optimizer) = (&self.train, &self.optimizer);
        let positive = |value: f64| value >= 0.0 && value.is_finite();
        let [beta1, beta2] = self.betas();
        let [first_decay, last_decay] = self.weight_decay();
        vec![
            (
                train.steps > 0 || train.epochs > 0,
                "train.steps",
                "steps or epochs above 0",
                "0 of both".to_owned(),
            ),
            (
                train.steps.max(train.epochs) <= 1 << 40,
                "train.steps",
                "at most 2^40",
                train.steps.max(train.epochs).to_string(),
            ),
            count(train.batch, "train.batch", "1 to 65536", 65_536),
            count(
                train.micro_tokens,
                "train.micro_tokens",
                "1 or more",
                1 << 30,
            ),
            (
                (0.0..1.0).contains(&train.drop_path),
                "train.drop_path",
                "a share from 0, below 1",
                train.drop_path.to_string(),
            ),
            count(train.workers, "train.workers", "1 to 64", 64),
            (
                train.checkpoint_every > 0,
                "train.checkpoint_every",
                "1 or more",
                "0".to_owned(),
            ),
            count(train.keep, "train.keep", "1 or more", MOST),
            (
                positive(self.base_lr()) && positive(self.min_lr()),
                "optimizer.base_lr",
                "learning rates of 0 or more",
                format!("{} and {}", self.base_lr(), self.min_lr()),
            ),
            (
                (0.0..1.0).contains(&optimizer.warmup),
                "optimizer.warmup",
                "a share from 0, below 1",
                optimizer.warmup.to_string(),
            ),
            (
                (0.0..1.0).contains(&beta1) && (0.0..1.0).contains(&beta2),
                "optimizer.betas",
                "two numbers from 0, below 1",
                format!("{:?}", self.betas()),
            ),
            (
                positive(first_decay) && positive(last_decay),
                "optimizer.weight_decay",
                "two numbers of 0 or more",
                format!("{:?}", self.weight_decay()),
            ),
            (
                positive(optimizer.clip),
                "optimizer.clip",
                "0 or more",
                optimizer.clip.to_string(),
            ),
            (
                (0.0..1.0).contains(&self.monitor.collapse_share),
                "monitor.collapse_share",
                "a share from 0, below 1",
                self.monitor.collapse_share.to_string(),
            ),
            (
                self.monitor.log_every > 0,
                "monitor.log_every",
                "1 or more",
                "0".to_owned(),
            ),
        ]
    }

    /// Learning rate for 256 items a batch: the setting, or that of the method's paper.
    pub(crate) fn base_lr(&self) -> f64 {
        self.optimizer.base_lr.unwrap_or(match self.method {
            Method::Mae | Method::Salt => 1.5e-4,
            Method::SimDino => 5e-4,
        })
    }

    /// Learning rate at the end.
    pub(crate) fn min_lr(&self) -> f64 {
        self.optimizer.min_lr.unwrap_or(match self.method {
            Method::Mae | Method::Salt => 0.0,
            Method::SimDino => 1e-6,
        })
    }

    /// Weight decay at the start and at the end.
    pub(crate) fn weight_decay(&self) -> [f64; 2] {
        self.optimizer.weight_decay.unwrap_or(match self.method {
            Method::Mae | Method::Salt => [0.05, 0.05],
            Method::SimDino => [0.04, 0.4],
        })
    }

    /// Decay of the optimiser's moments.
    pub(crate) fn betas(&self) -> [f64; 2] {
        self.optimizer.betas.unwrap_or(match self.method {
            Method::Mae | Method::Salt => [0.9, 0.95],
            Method::SimDino => [0.9, 0.999],
        })
    }
}

/// The rule that a number is at least 1 and at most `most`.
fn count(n: usize, setting: &'static str, expected: &'static str, most: usize) -> Rule {
    ((1..=most).contains(&n), setting, expected, n.to_string())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;

    #[test]
    fn a_setting_without_sense_is_named_with_what_it_may_be() {
        let text = "out = 'run'\nmanifests = ['a.csv']\nmethod = 'sim_dino'\n";
        let refused = |change: &str| {
            Config::from_toml(text, Path::new(""), &[change.to_owned()])
                .unwrap_err()
                .to_string()
        };
        for (change, wanted) in [
            ("manifests=[]", "setting manifests: expected at least one"),
            ("views.side=100", "setting views.side: expected a multiple"),
            ("views.area=[0.5, 0.2]", "setting views.area"),
            ("views.blur=[0, 0, 1.5]", "setting views.blur"),
            ("train.batch=0", "found 0"),
            ("simdino.eps=nan", "setting simdino.eps"),
            ("optimizer.warmup=1", "setting optimizer.warmup"),
            ("optimizer.base_lr=-1", "setting optimizer.base_lr"),
            ("mae.decoder_heads=5", "a divisor of mae.decoder_dim"),
            ("mae.target=edges", "unknown variant `edges`"),
            ("model.preset=huge", "tiny, small, base or large"),
            ("images.memory_mib=0", "setting images.memory_mib"),
            ("method=salt", "setting salt.teachers: expected one or two"),
            ("salt.mask_ratio=1", "setting salt.mask_ratio"),
            ("salt.changed=-0.1", "setting salt.changed"),
            ("images.synthetic=0.6", "setting images.synthetic"),
            ("images.synthetic=nan", "setting images.synthetic"),
        ] {
            let message = refused(change);
            assert!(message.contains(wanted), "{change}: {message}");
        }
    }

    #[test]
    fn targets_of_gradients_need_patches_of_2_x_2_cells() {
        let text = "out = 'run'\nmanifests = ['a.csv']\nmethod = 'mae'\n\
                    [model]\npatch = [1, 7, 8]\nside = 56\n[views]\nside = 56\n";
        let load = |change: &str| Config::from_toml(text, Path::new(""), &[change.to_owned()]);
        load("mae.target=pixels").unwrap();
        for target in ["hog", "both"] {
            let message = load(&format!("mae.target={target}"))
                .unwrap_err()
                .to_string();
            let wanted = format!(
                "setting mae.target: expected pixels, or patches of even height and width: \
                                  gradients are summed over 2 x 2 cells, found {target}, with patches of [1, 7, 8]"
            );
            assert!(message.contains(&wanted), "{message}");
        }
    }

    #[test]
    fn what_depends_on_the_folder_of_init_is_checked_once_it_has_been_read() {
        let text = "out = 'run'\nmanifests = ['a.csv']\nmethod = 'sim_dino'\ninit = 'dinov2'\n\
                    [views]\nlocal_side = 98\n[model]\nside = 238\n";
        let mut config = Config::from_toml(text, Path::new(""), &[]).unwrap();
        // As the folder fills them in.
        (config.model.patch, config.model.embed_dim) = (Some([4, 14, 14]), Some(384));
        config.validate().unwrap();
        config.views.local_side = 96;
        let text = config.validate().unwrap_err().to_string();
        assert!(text.contains("views.local_side"), "{text}");
        assert!(
            text.contains("found 96, with patches of [4, 14, 14]"),
            "{text}"
        );
        // MAE has no small views.
        config.method = crate::config::Method::Mae;
        config.validate().unwrap();
    }
}
