import logging
import resource
import shutil
import struct
import sys
import tracemalloc

import numpy as np
import pytest
from subsets import fuzz, real

from mirolib import InputError, load_dataset
from mirolib.data import audio, urbansound8k
from mirolib.data.audio import log_mel
from mirolib.data.urbansound8k import CLASS_NAMES, load

soundfile = pytest.importorskip("soundfile")


@pytest.fixture(scope="session")
def prepared(subset):
    return subset("urbansound8k")


@pytest.fixture(scope="session")
def originals(subset):
    return subset("urbansound8k, original")


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")


def tone(hertz=1000.0, seconds=4.0, rate=22_050, loudness=0.5):
    return loudness * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def noise(seconds=4.0, rate=22_050, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, int(seconds * rate))


def wav(path, sound, rate=22_050, subtype="PCM_16", kind="WAV"):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound, rate, subtype=subtype, format=kind)
    return path


def own_set(root, rows):
    """A tiny set: rows of (fold, name, class, sound or None for an absent wav)."""
    folder = root / "UrbanSound8K"
    (folder / "metadata").mkdir(parents=True)
    lines = ["slice_file_name,fsID,start,end,salience,fold,classID,class"]
    for fold, name, label, sound in rows:
        lines.append(f"{name},1,0.0,4.0,1,{fold},{label},{CLASS_NAMES[label]}")
        if sound is not None:
            wav(folder / "audio" / f"fold{fold}" / name, sound)
    (folder / "metadata" / "UrbanSound8K.csv").write_text("\n".join(lines) + "\n")
    return folder


def four_clips(root):
    return own_set(root, [(f, f"{f}-{c}.wav", c, tone(500 + 500 * c, seconds=0.2)) for f in (3, 7) for c in (0, 4)])


# --- what is read ---


@real
def test_the_subset_is_read_whole_with_its_highest_fold_for_testing(prepared):
    dataset = load(prepared)
    assert (len(dataset.train), len(dataset.test), dataset.class_names) == (100, 50, CLASS_NAMES)
    assert np.bincount(dataset.train.labels).tolist() == [10] * 10
    assert np.bincount(dataset.test.labels).tolist() == [5] * 10
    assert dataset.train.data.shape == (100, 1, 100, 100) and dataset.train.data.dtype == np.uint8
    assert (dataset.train.data.reshape(100, -1).max(axis=1) == 255).all()
    folder = prepared / "UrbanSound8K" / "audio"
    in_order = sorted(path.name for path in (folder / "fold10").iterdir())
    assert dataset.test.labels.tolist() == [int(name.split("-")[1]) for name in in_order]
    np.testing.assert_array_equal(dataset.test.read(slice(3, 4))[0], log_mel(folder / "fold10" / in_order[3]))


@real
def test_presets_fit_what_is_there(prepared):
    small = load_dataset("urbansound8k", root=prepared)
    preset = small.spec.preset()
    assert next(iter(small.spec.presets)) == "small" and (len(small.train), len(small.test)) == (100, 50)
    held_out = len(small.train) // 10
    assert preset.stream_size <= (len(small.train) - held_out) // preset.tasks
    paper = small.spec.preset("paper")
    assert (paper.tasks, paper.epochs, paper.batch_size, paper.milestones, paper.gamma) == (10, 100, 10, (30, 60), 2.0)
    assert (paper.stream_size, paper.episodic_size, paper.swap_ratio) == (1000, 100, 0.5)


@real
def test_original_wavs_are_read_in_stereo_and_24_bits(originals, caplog):
    wavs = sorted(originals.glob("UrbanSound8K/audio/*/*.wav"))
    kinds = {(info.subtype, info.samplerate, info.channels) for info in map(soundfile.info, wavs)}
    assert len(wavs) == 10 and kinds == {("PCM_16", 44_100, 2), ("PCM_24", 48_000, 2)}
    for path in wavs:
        image = log_mel(path)
        assert image.shape == (1, 100, 100) and image.max() == 255 and image.std() > 10
        ends = -(-soundfile.info(path).duration * 25 // 1) + 3  # 25 frames a second, half a window beyond the end
        assert not image[0, :, int(ends) :].any()
    with pytest.raises(InputError, match="No class has wavs both in fold 10"):
        load(originals)


@real
def test_both_archives_together_are_one_set(prepared, originals, tmp_path, caplog):
    for part in (prepared, originals):
        shutil.copytree(part / "UrbanSound8K", tmp_path / "UrbanSound8K", dirs_exist_ok=True)
    with caplog.at_level(logging.INFO):
        dataset = load(tmp_path)
    there = len(list(tmp_path.glob("UrbanSound8K/audio/*/*.wav")))
    assert len(dataset.train) + len(dataset.test) == there
    assert f"{there} of the 8732 clips" in caplog.text and "folds 1, 2, 3, 5, 7, 10" in caplog.text


@real
def test_original_and_prepared_wav_of_one_clip_look_alike(prepared, originals):
    for path in originals.glob("UrbanSound8K/audio/*/*.wav"):
        other = prepared / path.relative_to(originals)
        if other.is_file() and soundfile.info(path).duration > 3.99:
            difference = np.abs(log_mel(path)[0, :90].astype(int) - log_mel(other)[0, :90])
            assert np.median(difference) <= 3


# --- the spectrogram ---


def test_a_pure_tone_is_loudest_in_the_band_computed_by_hand(tmp_path):
    # mel(1000 Hz) = 2595 log10(1 + 1000/700) = 999.99; mel(11,025 Hz) = 3176.6, in 101 steps of 31.45; 999.99 / 31.45 =
    # 31.79, so the nearest centre is number 32, which is row 31 counted from 0
    image = log_mel(wav(tmp_path / "tone.wav", tone(1000.0)))[0]
    assert (image[:, 5:95].argmax(axis=0) == 31).all() and (image[31, 5:95] == 255).all()
    # 20 dB less in the second half are 20 / 80 of 255 pixels
    both = np.concatenate([tone(1000.0, seconds=2.0), tone(1000.0, seconds=2.0, loudness=0.05)])
    image = log_mel(wav(tmp_path / "two.wav", both, subtype="FLOAT"))[0]
    assert image[31, 20] == 255 and (np.abs(image[31, 60:95].astype(int) - round(255 * 0.75)) <= 1).all()


def test_image_equals_a_plain_loop(tmp_path):
    sound = noise() * np.linspace(0, 1, 88_200)
    image = log_mel(wav(tmp_path / "noise.wav", sound, subtype="DOUBLE"))[0]
    padded = np.concatenate([np.zeros(1024), sound, np.zeros(1024)])
    edges = [700 * (10 ** (i * 2595 * np.log10(1 + 11_025 / 700) / 101 / 2595) - 1) for i in range(102)]
    power = np.empty((100, 100))
    for frame in range(100):
        piece = padded[frame * 882 : frame * 882 + 2048] * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(2048) / 2048))
        spectrum = np.abs(np.fft.fft(piece)[:1025]) ** 2
        for band in range(100):
            low, middle, high = edges[band : band + 3]
            weight = np.interp(np.arange(1025) * 22_050 / 2048, [low, middle, high], [0, 1, 0])
            power[band, frame] = (weight * spectrum).sum()
    decibels = np.maximum(10 * np.log10(power / power.max()), -80)
    expected = np.round(255 + decibels * 255 / 80)
    assert np.abs(image - expected).max() <= 1 and (image == expected).mean() > 0.999
    assert image.max(axis=1).min() > 128, "every band weighs some frequency"


@pytest.mark.parametrize("kind", ["WAV", "WAVEX"])
@pytest.mark.parametrize("subtype", ["PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_every_encoding_of_a_signal_gives_the_same_image(tmp_path, subtype, kind):
    sound = noise() * 0.2 + tone(700.0)
    expected = log_mel(wav(tmp_path / "pcm16.wav", sound)).astype(int)
    image = log_mel(wav(tmp_path / "other.wav", sound, subtype=subtype, kind=kind))
    assert np.abs(image - expected).max() <= 1


@pytest.mark.parametrize("subtype", ["PCM_U8", "MS_ADPCM", "IMA_ADPCM"])
def test_lossy_encodings_give_the_same_image_where_it_is_loud(tmp_path, subtype):
    sound = noise() * 0.2 + tone(700.0)
    expected = log_mel(wav(tmp_path / "pcm16.wav", sound)).astype(int)
    difference = np.abs(log_mel(wav(tmp_path / "other.wav", sound, subtype=subtype)) - expected)
    assert difference[expected > 220].max() <= 6 and difference.mean() <= 6


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000, 96_000, 192_000])
def test_every_rate_gives_the_same_image_below_its_limit(tmp_path, rate):
    rows = slice(0, 60)  # up to 3.1 kHz
    expected = log_mel(wav(tmp_path / "a.wav", tone(440.0) + tone(2000.0, loudness=0.1)))[0, rows].astype(int)
    image = log_mel(wav(tmp_path / "b.wav", tone(440.0, rate=rate) + tone(2000.0, rate=rate, loudness=0.1), rate))
    loud = expected[:, 5:95] > 128
    assert np.abs(image[0, rows, 5:95] - expected[:, 5:95])[loud].max() <= 3


def test_stereo_is_the_mean_of_both_channels(tmp_path):
    left, right = tone(440.0), noise()
    stereo = log_mel(wav(tmp_path / "stereo.wav", np.stack([left, right], axis=1), subtype="FLOAT"))
    np.testing.assert_array_equal(stereo, log_mel(wav(tmp_path / "mono.wav", (left + right) / 2, subtype="FLOAT")))


def test_short_clips_are_padded_long_ones_cut_and_silence_is_black(tmp_path):
    short = log_mel(wav(tmp_path / "short.wav", noise(1.0)))[0]
    assert (short[:, :24].mean(axis=0) > 128).all() and not short[:, 27:].any()
    padded = wav(tmp_path / "padded.wav", np.concatenate([noise(1.0), np.zeros(3 * 22_050)]))
    np.testing.assert_array_equal(short, log_mel(padded)[0])
    long = log_mel(wav(tmp_path / "long.wav", np.concatenate([noise(4.0), noise(6.0, seed=1)])))
    np.testing.assert_array_equal(long, log_mel(wav(tmp_path / "exact.wav", noise(4.0))))
    assert log_mel(wav(tmp_path / "one.wav", np.array([0.5]))).max() == 255
    assert not log_mel(wav(tmp_path / "silence.wav", np.zeros(100))).any()


# --- the cache ---


def test_images_are_computed_once_for_the_same_settings_and_files(tmp_path, monkeypatch):
    folder = four_clips(tmp_path)
    first = load(tmp_path).fingerprint
    with monkeypatch.context() as patch:
        patch.setattr(urbansound8k, "log_mel", lambda path, **_: pytest.fail("computed again"))
        assert load(tmp_path).fingerprint == first
    with monkeypatch.context() as patch:
        patch.setattr(audio, "RANGE_DB", 40)
        assert load(tmp_path).fingerprint != first
    assert load(tmp_path).fingerprint == first
    wav(folder / "audio" / "fold3" / "3-0.wav", tone(3000.0, seconds=0.3))
    assert load(tmp_path).fingerprint != first
    assert len(list((tmp_path / "cache").iterdir())) == 1, "what is out of date makes room"


# --- what is there, and what is not ---


def test_absent_wavs_and_lonely_classes_are_left_out_and_counted(tmp_path, caplog):
    own_set(
        tmp_path,
        [(fold, f"{fold}-{label}.wav", label, tone(seconds=0.1)) for fold in (2, 9) for label in (1, 8)]
        + [(9, "only-test.wav", 3, tone(seconds=0.1)), (2, "only-train.wav", 5, tone(seconds=0.1))]
        + [(10, "absent.wav", 1, None), (2, "gone.wav", 1, None)],
    )
    with caplog.at_level(logging.INFO):
        dataset = load(tmp_path)
    assert dataset.class_names == ("car_horn", "siren")
    assert (dataset.train.labels.tolist(), dataset.test.labels.tolist()) == ([0, 1], [0, 1])
    assert "6 of the 8 clips" in caplog.text and "folds 2, 9" in caplog.text
    assert "Left out, for want of a clip to train or to test: dog_bark, engine_idling" in caplog.text


def test_the_folder_itself_is_a_root_too(tmp_path):
    folder = four_clips(tmp_path)
    assert load(folder).fingerprint == load(tmp_path).fingerprint


def test_folds_and_csv_side_by_side_will_do(tmp_path):
    folder = four_clips(tmp_path)
    expected = load(tmp_path).fingerprint
    for part in ("audio", "metadata"):
        for path in (folder / part).iterdir():
            path.rename(folder / path.name)
        (folder / part).rmdir()
    assert load(tmp_path).fingerprint == expected
    folder.rename(tmp_path / "another name")
    assert load(tmp_path).fingerprint == expected


def test_wrong_layouts_are_refused(tmp_path):
    with pytest.raises(InputError, match="There is no folder UrbanSound8K in .* Get http.*/UrbanSound8K.tar.gz"):
        load(tmp_path)
    folder = four_clips(tmp_path)
    shutil.rmtree(folder / "audio" / "fold3")
    with pytest.raises(InputError, match="Only fold 7 has wavs"):
        load(tmp_path)
    shutil.rmtree(folder / "audio")
    with pytest.raises(InputError, match="None of the wavs that"):
        load(tmp_path)
    (folder / "metadata" / "UrbanSound8K.csv").unlink()
    with pytest.raises(InputError, match=r"There is no file .*UrbanSound8K\.csv"):
        load(tmp_path)


HEADER = b"slice_file_name,fold,classID\n"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "lists no clips"),
        (HEADER, "lists no clips"),
        (b"name,fold\na.wav,1\n", "Line 2 of .* is no clip"),
        (HEADER + b"a.wav,1,0\nb.wav,11,0\n", "Line 3 of"),
        (HEADER + b"a.wav,1,10\n", "Line 2 of"),
        (HEADER + b"a.wav,one,0\n", "Line 2 of"),
        (HEADER + b"a.wav,1\n", "Line 2 of"),
        (HEADER + b"a.wav,1,0\na.wav,1,3\n", "Line 3 of"),
        (HEADER + b"\xff\xfe,1,0\n", "can't be read as a table"),
        (HEADER + b"a.wav,1," + b"9" * 200_000 + b"\n", "can't be read as a table"),
        (HEADER + b"a.wav,1," + b"9" * 6_000 + b"\n", "Line 2 of|can't be read as a table"),
        (HEADER + b"../../metadata/UrbanSound8K.csv,1,0\n", "None of the wavs"),
    ],
)
def test_a_bad_csv_is_refused_with_a_sentence(tmp_path, content, sentence):
    folder = four_clips(tmp_path)
    (folder / "metadata" / "UrbanSound8K.csv").write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        load(tmp_path)


def riff(data=b"\x00\x01" * 400, *, claimed=None, rate=22_050, channels=1, bits=16, kind=1):
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", kind, channels, rate, min(rate * block, 2**32 - 1), block, bits)
    size = len(data) if claimed is None else claimed
    body = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", size) + data
    return b"RIFF" + struct.pack("<I", min(28 + 8 + size, 2**32 - 1)) + body


NAN = np.full(50, np.nan, "<f4").tobytes()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "can't be read as sound .*original archive"),
        (riff(b""), "is empty or truncated: 0 of 0 samples"),
        (riff()[:-100], "is truncated: 700 of 800 bytes"),
        (riff()[:38], "without sound, truncated or damaged"),
        (riff(claimed=2**32 - 2), "is truncated"),
        (b"ID3\x04" + b"\x00" * 500, "can't be read as sound"),
        (b"<html>not found</html>", "can't be read as sound"),
        (b"RIFF\x00\x00\x00\x00WAVE" + b"\x00" * 100_000, "without sound"),
        (riff(kind=85), "can't be read as sound"),
        (riff(rate=2**31 - 1), "claims 1 channels at 2147483647 Hz"),
        (riff(rate=10), "at 10 Hz"),
        (riff(channels=6), "claims 6 channels"),
        (riff(NAN, kind=3, bits=32), "NaN, infinite"),
        (riff(np.full(50, 1e300).tobytes(), kind=3, bits=64), "beyond any sound"),
    ],
)
def test_a_bad_wav_is_refused_with_a_sentence_that_names_it(tmp_path, content, sentence):
    folder = four_clips(tmp_path)
    (folder / "audio" / "fold7" / "7-4.wav").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(InputError, match=rf"fold7/7-4\.wav.*{sentence}"):
        load(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6 and not list((tmp_path / "cache").iterdir())


def test_a_valid_handmade_wav_is_read(tmp_path):
    (tmp_path / "a.wav").write_bytes(riff())
    assert log_mel(tmp_path / "a.wav").max() == 255


# --- other files ---


@pytest.mark.parametrize(("kind", "subtype"), [("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("AIFF", "PCM_16")])
def test_other_lossless_files_give_the_same_image(tmp_path, kind, subtype):
    sound = np.round(32767 * (noise() * 0.2 + tone(700.0))) / 32768
    expected = log_mel(wav(tmp_path / "a.wav", sound))
    np.testing.assert_array_equal(log_mel(wav(tmp_path / "b", sound, subtype=subtype, kind=kind)), expected)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "AIFF"])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.99])
def test_a_file_cut_short_is_refused_also_where_the_cut_is_beyond_what_is_read(tmp_path, kind, share):
    path = wav(tmp_path / f"own.{kind.lower()}", noise(10.0), kind=kind)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError, match=rf"own\.{kind.lower()} .*; replace the file\.$"):
        log_mel(path)


def test_other_lengths_are_cut_to(tmp_path):
    sound = np.concatenate([tone(500.0, 0.5), tone(4000.0, 0.5)])
    image = log_mel(wav(tmp_path / "a.wav", sound), seconds=1.0)[0]
    low, high = image[:, 10:40].argmax(axis=0), image[:, 60:90].argmax(axis=0)
    assert image.shape == (100, 100) and (low < 25).all() and (high > 60).all()
    assert log_mel(tmp_path / "a.wav", seconds=60)[0, :, 5:].max() == 0, "more than a window between frames"
    for seconds in (0, 1e9, float("nan")):
        with pytest.raises(InputError, match="give 0.1 to 600"):
            log_mel(tmp_path / "a.wav", seconds)


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    four_clips(tmp_path)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(InputError, match=r"pip install 'mirolib\[audio\]'"):
        load(tmp_path)


@real
def test_mutated_wavs_are_read_or_refused(prepared, originals, tmp_path):
    def read(path):
        image = log_mel(path)
        assert image.shape == (1, 100, 100) and image.dtype == np.uint8

    wavs = sorted(originals.glob("UrbanSound8K/audio/*/*.wav"))
    first = soundfile.read(wavs[0])[0][:8000]
    wavs += sorted(prepared.glob("UrbanSound8K/audio/fold1/*.wav"))[:5]
    mutants = [shutil.copy(path, tmp_path / f"{number}.wav") for number, path in enumerate(wavs)]
    for subtype in ("FLOAT", "MS_ADPCM", "IMA_ADPCM", "PCM_24"):
        mutants.append(wav(tmp_path / f"{subtype}.wav", first, 44_100, subtype))
    read(wavs[0])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fuzz(read, tmp_path, mutants, head=64)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # KiB


@real
def test_mutated_csvs_are_read_or_refused(prepared, tmp_path):
    table = four_clips(tmp_path) / "metadata" / "UrbanSound8K.csv"
    more = (prepared / "UrbanSound8K" / "metadata" / "UrbanSound8K.csv").read_bytes().splitlines(keepends=True)[1:60]
    table.write_bytes(table.read_bytes() + b"".join(more))

    def read(path):
        assert 0 < len(load(tmp_path).train) <= 4

    fuzz(read, tmp_path, [table], head=64)
