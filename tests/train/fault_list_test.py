"""Every fault of docs/faults.md has a test."""

import pathlib
import re

import pytest

TESTS = pathlib.Path(__file__).parents[1]
FAULTS = {  # the tests of each row of docs/faults.md
    1: (
        "train/chaos_test.py::test_kills_and_signals_in_every_phase_change_nothing",
        "train/chaos_test.py::test_a_hundred_kills_of_each_seed_change_nothing",
        "checkpoint/corruption_test.py::test_after_a_kill_at_any_time_the_newest_verifies",
        "data/cache_test.py::test_what_dead_builds_left_is_removed_after_a_day",
    ),
    2: (
        "train/checkpoint_faults_test.py::test_a_full_disk_ends_the_run_and_keeps_its_checkpoints",
        "checkpoint/processes_test.py::test_two_processes_save_and_fail_together_and_one_restores",
        "checkpoint/checkpoints_test.py::test_a_directory_that_cannot_be_made_is_named",
    ),
    3: ("train/chaos_test.py::test_kills_and_signals_in_every_phase_change_nothing",),
    4: ("train/chaos_test.py::test_kills_and_signals_in_every_phase_change_nothing",),
    5: (
        "train/resume_test.py::test_killed_and_resumed_it_is_the_straight_run",
        "train/bad_steps_test.py::test_a_rollback_passes_the_data_and_survives_a_stop",
        "train/replay_test.py::test_two_runs_on_one_mesh_have_the_same_bits",
    ),
    6: ("train/resume_test.py::test_resumed_on_another_mesh_it_sees_the_same_examples",),
    7: (
        "runtime/hosts_test.py::test_four_processes_stop_at_one_step_and_one_or_two_go_on",
        "runtime/hosts_test.py::test_each_process_loads_the_rows_of_its_devices",
    ),
    8: (
        "optim/composition_test.py::test_state_restored_by_orbax_continues_bit_for_bit",
        "optim/sgd_sai_test.py::test_factors_are_measured_once_and_again_only_when_asked",
    ),
    9: (
        "checkpoint/corruption_test.py::test_a_change_in_any_file_is_found",
        "checkpoint/corruption_test.py::test_by_the_numbers_alone_a_change_is_found_or_harmless",
        "checkpoint/corruption_test.py::test_the_older_one_is_used_and_the_newer_named",
        "train/checkpoint_faults_test.py::test_a_rollback_passes_over_corrupt_checkpoints",
    ),
    10: (
        "train/resume_test.py::test_another_configuration_is_refused_with_each_difference",
        "train/length_test.py::test_another_length_is_asked_for_where_schedules_depend_on_it",
        "train/workdir_test.py::test_a_start_that_fails_leaves_nothing_behind",
    ),
    11: (
        "train/bad_config_test.py::test_the_command_ends_with_one_sentence",
        "sweep_test.py::test_a_wrong_sweep_is_refused_before_anything_runs",
    ),
    12: (
        "train/bad_steps_test.py::test_a_loss_that_is_not_finite_stops_and_keeps_checkpoints",
        "train/bad_steps_test.py::test_skipped_steps_are_counted_and_too_many_stop",
        "train/bad_steps_test.py::test_the_running_mean_is_that_of_the_good_steps",
        "train/bad_steps_test.py::test_an_empty_batch_divides_by_nothing",
    ),
    13: ("model/invariance_test.py::test_powers_of_two_change_no_bit_and_others_only_rounding",),
    14: (
        "optim/relative_clip_test.py::test_values_at_the_edge",
        "optim/scale_invariant_sgd_test.py::test_without_equilibrium_nothing_is_clipped",
    ),
    15: (
        "runtime/hosts_test.py::test_a_stopped_process_ends_the_other",
        "runtime/hosts_test.py::test_two_processes_train_as_one_even_if_one_is_killed",
        "runtime/watchdog_test.py::test_a_phase_that_hangs_is_shown_and_ends_the_process",
        "runtime/watchdog_test.py::test_a_run_that_hangs_ends_and_then_resumes",
    ),
    16: ("runtime/replay_test.py::test_a_flipped_bit_of_a_gradient_is_found",),
    17: (
        "train/resume_test.py::test_changed_text_is_refused",
        "data/corpora_test.py::test_only_changed_text_is_tokenized_again",
        "data/corpora_test.py::test_a_corrupt_cache_is_rebuilt_alike",
    ),
    18: (
        "train/writers_test.py::test_rows_wait_for_a_full_disk_and_none_is_cut",
        "train/writers_test.py::test_tensorboard_gives_up_with_one_line",
    ),
    19: ("checkpoint/fixture_test.py::test_a_checkpoint_of_another_jax_verifies_and_restores",),
    20: (
        "tasks/question_answering/scoring_test.py::test_the_official_predictions_have_their_official_scores",
        "tasks/classification/metrics_test.py::test_the_examples_in_scikit_learns_documentation",
    ),
}


def test_the_page_lists_the_same_faults():
    page = (TESTS.parent / "docs/faults.md").read_text(encoding="utf-8")
    numbers = re.findall(r"^\| (\d+) \|", page.split("\n## ")[-1], re.MULTILINE)
    assert [int(number) for number in numbers] == list(FAULTS)


@pytest.mark.parametrize("name", sorted({name for names in FAULTS.values() for name in names}))
def test_the_test_exists(name):
    path, test = name.split("::")
    assert f"def {test}(" in (TESTS / path).read_text(encoding="utf-8")
