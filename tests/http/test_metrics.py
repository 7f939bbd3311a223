"""Metrics, and the Prometheus text exposition format 0.0.4 that they are written in."""

from __future__ import annotations

import math
import os
import resource
import tempfile
import threading
import unittest
from collections.abc import Iterable, Iterator
from pathlib import Path

from vex.metrics import Buckets, Metrics, Sample, process_metrics


def lines(metrics: Metrics) -> list[str]:
    """Return what is rendered, without its comments."""
    return [line for line in metrics.render().splitlines() if not line.startswith("#")]


class FormatTest(unittest.TestCase):
    def setUp(self) -> None:
        self.metrics = Metrics()

    def rendered(self, value: float) -> str:
        metrics = Metrics()
        metrics.gauge("g", "G.").set(value)
        return lines(metrics)[0].partition(" ")[2]

    def test_nothing_is_an_empty_text(self) -> None:
        self.assertEqual(self.metrics.render(), "")

    def test_a_counter_is_there_from_the_start_with_help_and_type(self) -> None:
        self.metrics.counter("vex_panic_total", "Failures.")
        self.assertEqual(
            self.metrics.render(),
            "# HELP vex_panic_total Failures.\n# TYPE vex_panic_total counter\nvex_panic_total 0\n",
        )

    def test_help_has_backslash_and_line_feed_escaped_and_quotes_not(self) -> None:
        self.metrics.gauge("g", 'a\\b\nc "d"')
        self.assertEqual(self.metrics.render().splitlines()[0], r'# HELP g a\\b\nc "d"')

    def test_label_values_have_backslash_line_feed_and_quotes_escaped(self) -> None:
        self.metrics.labelled_gauge("g", "G.", {"path": ['C:\\DIR\n"x"']})('C:\\DIR\n"x"').set(1)
        self.assertEqual(lines(self.metrics), [r'g{path="C:\\DIR\n\"x\""} 1'])

    def test_numbers_are_those_of_the_format(self) -> None:
        for value, expected in (
            (0, "0"),
            (1.0, "1"),
            (-3, "-3"),
            (0.25, "0.25"),
            (68719476736, "68719476736"),
            (68719476736.0, "68719476736"),
            (10**20, "100000000000000000000"),
            (1e-7, "1e-07"),
            (math.inf, "+Inf"),
            (-math.inf, "-Inf"),
            (math.nan, "NaN"),
        ):
            with self.subTest(value):
                self.assertEqual(self.rendered(value), expected)

    def test_labels_are_in_their_declared_order_and_series_are_sorted(self) -> None:
        family = self.metrics.labelled_counter("c_total", "C.", {"z": ["1", "2"], "a": ["x"]})
        family("2", "x").add()
        family("1", "x").add(5)
        self.assertEqual(lines(self.metrics), ['c_total{z="1",a="x"} 5', 'c_total{z="2",a="x"} 1'])

    def test_metrics_come_in_the_order_in_which_they_were_made(self) -> None:
        for name in ("b", "a", "c"):
            self.metrics.gauge(name, "G.")
        self.assertEqual(lines(self.metrics), ["b 0", "a 0", "c 0"])


class ValueTest(unittest.TestCase):
    def test_amounts_add_up(self) -> None:
        metrics = Metrics()
        counter = metrics.counter("c_total", "C.")
        counter.add()
        counter.add(41)
        self.assertEqual((counter.value, lines(metrics)), (42, ["c_total 42"]))

    def test_a_gauge_goes_up_and_down(self) -> None:
        gauge = Metrics().gauge("g", "G.")
        gauge.set(5)
        gauge.add(-7)
        self.assertEqual(gauge.value, -2)

    def test_no_count_is_lost_between_threads(self) -> None:
        metrics = Metrics()
        counter = metrics.counter("c_total", "C.")
        family = metrics.labelled_counter("d_total", "D.", {"k": ["x"]})
        buckets = metrics.histogram("h", "H.", bounds=(1,))()

        def count() -> None:
            for _ in range(5000):
                counter.add()
                family("x").add()
                buckets.observe(2)

        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        expected = [
            "c_total 20000",
            'd_total{k="x"} 20000',
            'h_bucket{le="1"} 0',
            'h_bucket{le="+Inf"} 20000',
            "h_sum 40000",
            "h_count 20000",
        ]
        self.assertEqual(lines(metrics), expected)


class LabelsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.metrics = Metrics()
        self.family = self.metrics.labelled_counter("c_total", "C.", {"listener": ["public", "auth"], "code": ["200"]})

    def test_the_same_values_give_the_same_series(self) -> None:
        self.assertIs(self.family("public", "200"), self.family("public", "200"))
        self.assertIsNot(self.family("public", "200"), self.family("auth", "200"))

    def test_a_value_that_was_not_declared_is_counted_under_other(self) -> None:
        self.family("public", "200").add()
        self.family("nobody", "200").add()
        self.family("auth", "999").add()
        expected = [
            'c_total{listener="auth",code="other"} 1',
            'c_total{listener="other",code="200"} 1',
            'c_total{listener="public",code="200"} 1',
        ]
        self.assertEqual(lines(self.metrics), expected)

    def test_a_hundred_thousand_values_add_one_series(self) -> None:
        for number in range(100_000):
            self.family("public", str(number + 1000)).add()
        self.assertEqual(lines(self.metrics), ['c_total{listener="public",code="other"} 100000'])

    def test_a_wrong_number_of_values_is_refused(self) -> None:
        for values in ((), ("public",), ("public", "200", "x")):
            with self.subTest(values), self.assertRaises(ValueError):
                self.family(*values)

    def test_names_outside_the_grammar_are_refused(self) -> None:
        for name in ("", "1a", "a-b", "a b", "a\n", "é"):
            with self.subTest(name), self.assertRaises(ValueError):
                self.metrics.counter(name, "C.")
        for label in ("", "1a", "a-b", "a:b", "__a", "a\n"):
            with self.subTest(label), self.assertRaises(ValueError):
                self.metrics.labelled_counter("fresh", "C.", {label: ["x"]})

    def test_a_name_is_taken_once(self) -> None:
        self.metrics.histogram("h", "H.")
        for name in ("c_total", "h", "h_bucket", "h_sum", "h_count"):
            with self.subTest(name), self.assertRaises(ValueError):
                self.metrics.gauge(name, "G.")
        self.metrics.gauge("g_sum", "G.")
        with self.assertRaises(ValueError):
            self.metrics.histogram("g", "H.")


class HistogramTest(unittest.TestCase):
    def test_buckets_are_cumulative_with_inclusive_bounds(self) -> None:
        metrics = Metrics()
        buckets = metrics.histogram("h_seconds", "H.", {"op": ["blob"]}, bounds=(0.5, 1, 2.5))("blob")
        for value in (0.25, 0.5, 0.75, 2.5, 100):
            buckets.observe(value)
        self.assertEqual(
            metrics.render(),
            "# HELP h_seconds H.\n"
            "# TYPE h_seconds histogram\n"
            'h_seconds_bucket{op="blob",le="0.5"} 2\n'
            'h_seconds_bucket{op="blob",le="1"} 3\n'
            'h_seconds_bucket{op="blob",le="2.5"} 4\n'
            'h_seconds_bucket{op="blob",le="+Inf"} 5\n'
            'h_seconds_sum{op="blob"} 104\n'
            'h_seconds_count{op="blob"} 5\n',
        )

    def test_bounds_that_make_no_histogram_are_refused(self) -> None:
        for number, bounds in enumerate(((), (2, 1), (1, 1), (1, math.inf), (math.nan,))):
            with self.subTest(bounds), self.assertRaises(ValueError):
                Metrics().histogram(f"h{number}", "H.", bounds=bounds)

    def test_a_label_le_is_refused(self) -> None:
        with self.assertRaises(ValueError):
            Metrics().histogram("h", "H.", {"le": ["1"]})

    def test_what_a_part_counts_is_in_the_series_and_can_be_told_from_the_rest(self) -> None:
        metrics = Metrics()
        series = metrics.histogram("h", "H.", bounds=(1, 2))()
        part, other = series.part(), series.part()
        for buckets, value in ((series, 1), (part, 2), (other, 2), (part, 4)):
            buckets.observe(value)
        self.assertEqual(
            lines(metrics),
            ['h_bucket{le="1"} 1', 'h_bucket{le="2"} 3', 'h_bucket{le="+Inf"} 4', "h_sum 9", "h_count 4"],
        )
        self.assertEqual(series.counts(), (1, 3))

    def test_a_histogram_that_is_counted_elsewhere_is_written_too(self) -> None:
        metrics, buckets = Metrics(), Buckets((1,))
        metrics.hold("h", "H.", buckets)
        buckets.observe(2)
        self.assertEqual(lines(metrics), ['h_bucket{le="1"} 0', 'h_bucket{le="+Inf"} 1', "h_sum 2", "h_count 1"])
        with self.assertRaises(ValueError):
            metrics.gauge("h_sum", "H.")

    def test_a_series_can_be_held_on_to(self) -> None:
        metrics = Metrics()
        family = metrics.histogram("h", "H.", bounds=(1,))
        held: Buckets = family()
        held.observe(1)
        family().observe(2)
        self.assertEqual(lines(metrics)[-1], "h_count 2")


class CollectorTest(unittest.TestCase):
    def setUp(self) -> None:
        self.metrics = Metrics()

    def test_values_are_those_at_the_time_of_asking(self) -> None:
        values = iter([1.0, 2.0])
        self.metrics.collect(lambda: [Sample("vex_tags", "gauge", "Tags.", next(values))])
        self.assertEqual(self.metrics.render(), "# HELP vex_tags Tags.\n# TYPE vex_tags gauge\nvex_tags 1\n")
        self.assertEqual(lines(self.metrics), ["vex_tags 2"])

    def test_samples_of_a_name_are_one_group(self) -> None:
        def collector() -> Iterable[Sample]:
            return [
                Sample("a", "gauge", "A.", 1, {"k": 'x"'}),
                Sample("b", "counter", "B.", 2),
                Sample("a", "gauge", "A.", 3, {"k": "y"}),
            ]

        self.metrics.collect(collector)
        expected = '# HELP a A.\n# TYPE a gauge\na{k="x\\""} 1\na{k="y"} 3\n# HELP b B.\n# TYPE b counter\nb 2\n'
        self.assertEqual(self.metrics.render(), expected)

    def test_a_collector_that_fails_takes_only_its_own_samples_with_it(self) -> None:
        def failing() -> Iterator[Sample]:
            yield Sample("lost", "gauge", "L.", 1)
            raise OSError("the database is away")

        self.metrics.counter("c_total", "C.")
        self.metrics.collect(failing)
        self.metrics.collect(lambda: [Sample("kept", "gauge", "K.", 1)])
        with self.assertLogs("vex", "ERROR"):
            self.assertEqual(lines(self.metrics), ["c_total 0", "kept 1"])

    def test_no_name_is_written_twice(self) -> None:
        self.metrics.counter("c_total", "C.")
        self.metrics.collect(lambda: [Sample("c_total", "counter", "Again.", 7)])
        self.metrics.collect(lambda: [Sample("g", "gauge", "G.", 1)])
        self.metrics.collect(lambda: [Sample("g", "gauge", "Again.", 7)])
        with self.assertLogs("vex", "ERROR"):
            self.assertEqual(lines(self.metrics), ["c_total 0", "g 1"])


class ProcessTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.proc = Path(directory.name)

    def samples(self) -> dict[str, float]:
        return dict(process_metrics(self.proc, lambda: 1700000000))

    def write_proc(self) -> None:
        # proc(5), /proc/pid/stat: pid (comm) state, and from there on the fields 4 to 25.
        fields = ["1"] * 22
        for number, value in ((20, 9), (22, 5 * os.sysconf("SC_CLK_TCK")), (23, 123_000), (24, 3)):
            fields[number - 4] = str(value)
        (self.proc / "self" / "fd").mkdir(parents=True)
        (self.proc / "self" / "stat").write_text(f"42 (py (3) R 7) S {' '.join(fields)}\n")
        for number in range(4):
            (self.proc / "self" / "fd" / str(number)).touch()

    def test_the_fields_of_proc_are_read_whatever_the_program_is_called(self) -> None:
        self.write_proc()
        samples = self.samples()
        self.assertEqual(samples["process_threads"], 9)
        self.assertEqual(samples["process_virtual_memory_bytes"], 123_000)
        self.assertEqual(samples["process_resident_memory_bytes"], 3 * resource.getpagesize())
        self.assertEqual(samples["process_start_time_seconds"], 1700000005)
        # One of the four is the listing itself.
        self.assertEqual(samples["process_open_fds"], 3)

    def test_without_proc_the_rest_is_left_out(self) -> None:
        self.assertEqual(set(self.samples()), {"process_cpu_seconds_total", "process_max_fds"})

    def test_processor_time_only_grows(self) -> None:
        before = self.samples()["process_cpu_seconds_total"]
        while sum(os.times()[:2]) <= before + 0.02:
            sum(range(1000))
        self.assertGreater(self.samples()["process_cpu_seconds_total"], before)

    @unittest.skipUnless(Path("/proc/self/stat").exists(), "there is no /proc here")
    def test_this_process_has_plausible_values(self) -> None:
        samples = dict(process_metrics())
        self.assertEqual(len(samples), 7)
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.assertEqual(samples["process_max_fds"], math.inf if limit == resource.RLIM_INFINITY else limit)
        self.assertGreater(samples["process_resident_memory_bytes"], 2**20)
        self.assertGreater(samples["process_virtual_memory_bytes"], samples["process_resident_memory_bytes"])
        # 2020-01-01: this code is younger.
        self.assertGreater(samples["process_start_time_seconds"], 1577836800)


if __name__ == "__main__":
    unittest.main()
