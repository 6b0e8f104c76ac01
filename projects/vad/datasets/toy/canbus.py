"""CAN bus messages of the ego in the format of the nuScenes CAN bus expansion."""

import json
from pathlib import Path as FilePath

import numpy as np

from .place import Place
from .rig import yaw_quaternion
from .scenarios import AFTER, BEFORE
from .traffic import Agent

WHEELBASE, STEERING_RATIO, WHEEL_RADIUS = 2.588, 15.2, 0.305
GRAVITY = 9.81


def ego_motion(ego: Agent, t: float) -> dict[str, float]:
    """Position (scene frame), yaw, speed, acceleration and yaw rate of the rear axle."""
    s, v, a = (float(x) for x in ego.motion(t))
    x, y, yaw = (float(x) for x in ego.path.at(s))
    curvature = float(np.interp(s, ego.path.s, ego.path.curvature))
    return dict(s=s, x=x, y=y, yaw=yaw, v=v, a=a, curvature=curvature, rate=v * curvature)


def messages(ego: Agent, place: Place, duration: float, seed: list[int]) -> dict[str, list[dict]]:
    """All messages from before the first to after the last key frame, by type."""
    rng = np.random.default_rng([*seed, 50])
    out: dict[str, list[dict]] = {k: [] for k in _MAKERS}
    for name, (make, hertz) in _MAKERS.items():
        start = -BEFORE + 0.2 + rng.uniform(0, 0.5 / hertz)
        for t in np.arange(start, duration + AFTER - 0.3, 1 / hertz):
            m = ego_motion(ego, float(t))
            out[name].append(dict(make(m, place, rng), utime=place.at(float(t))))
    return out


def _wheel(m) -> float:
    """Angle of the steering wheel in radians, positive to the right."""
    return -STEERING_RATIO * float(np.arctan(WHEELBASE * m['curvature']))


def _accel(m, rng) -> list[float]:
    noise = rng.normal(0, 0.02, 3)
    return [float(x) for x in np.array([m['a'], m['v'] * m['rate'], GRAVITY]) + noise]


def _rates(m, rng) -> list[float]:
    return [float(x) for x in np.array([0.0, 0.0, m['rate']]) + rng.normal(0, 0.001, 3)]


def _pose(m, place, rng):
    x, y = place.to_map([m['x'], m['y']])
    return dict(
        accel=_accel(m, rng),
        orientation=yaw_quaternion(m['yaw'] + place.yaw),
        pos=[float(x), float(y), 0.0],
        rotation_rate=_rates(m, rng),
        vel=[m['v'], 0.0, 0.0],
    )


def _imu(m, place, rng):
    return dict(
        linear_accel=_accel(m, rng), q=yaw_quaternion(m['yaw']), rotation_rate=_rates(m, rng)
    )


def _steer(m, place, rng):
    return dict(value=_wheel(m))


def _throttle(m) -> int:
    return int(np.clip(40 * m['v'] / 10 + 250 * max(m['a'], 0), 0, 1000))


def _monitor(m, place, rng):
    brake = int(np.clip(-m['a'] * 9, 0, 126)) if m['a'] < -0.3 else 0
    rpm = m['v'] / (2 * np.pi * WHEEL_RADIUS) * 60
    turn = m['curvature'] if abs(m['curvature']) > 0.04 else 0.0
    return dict(
        available_distance=120,
        battery_level=78,
        brake=brake,
        brake_switch=2 if brake else 1,
        gear_position=7,
        left_signal=int(turn > 0),
        rear_left_rpm=rpm,
        rear_right_rpm=rpm,
        right_signal=int(turn < 0),
        steering=-float(np.degrees(_wheel(m))),
        steering_speed=0.0,
        throttle=_throttle(m),
        vehicle_speed=round(m['v'] * 3.6, 2),
        yaw_rate=round(float(np.degrees(m['rate'])), 1),
    )


def _sensors(m, place, rng):
    brake = 0.375 + 0.036 * float(np.clip(-m['a'] / 6, 0, 1))
    return dict(
        brake_sensor=brake,
        steering_sensor=-float(np.degrees(_wheel(m))),
        throttle_sensor=_throttle(m),
    )


def _vehicle(m, place, rng):
    rpm = m['v'] / (2 * np.pi * WHEEL_RADIUS) * 60
    wheels = {f'{k}_wheel_speed': rpm for k in ('FL', 'FR', 'RL', 'RR')}
    steer = -float(np.degrees(_wheel(m)))
    return dict(
        wheels,
        left_solar=30,
        right_solar=30,
        longitudinal_accel=m['a'],
        meanEffTorque=40 * m['a'],
        odom=int(m['s'] * 100) % 125,
        odom_speed=m['v'] * 3.6,
        pedal_cc=_throttle(m),
        regen=0,
        requestedTorqueAfterProc=40 * m['a'],
        steer_corrected=steer,
        steer_offset_can=-12.6,
        steer_raw=steer + 12.6,
        transversal_accel=m['v'] * m['rate'] / GRAVITY,
    )


_MAKERS = dict(
    ms_imu=(_imu, 100),
    pose=(_pose, 50),
    steeranglefeedback=(_steer, 100),
    vehicle_monitor=(_monitor, 2),
    zoesensors=(_sensors, 200),
    zoe_veh_info=(_vehicle, 100),
)


def meta(all_messages: dict[str, list[dict]]) -> dict:
    """Counts, rates and statistics per type, as in the expansion's meta file."""
    out = {}
    for name, own in all_messages.items():
        span = (own[-1]['utime'] - own[0]['utime']) / 1e6
        stats = {}
        for key in own[0]:
            values = np.array([m[key] for m in own], float)
            steps = np.diff(values, axis=0)
            numbers = dict(
                max=values.max(0), mean=values.mean(0), min=values.min(0), std=values.std(0)
            )
            numbers |= dict(
                diff_max=steps.max(0),
                diff_mean=steps.mean(0),
                diff_min=steps.min(0),
                diff_std=steps.std(0),
            )
            stats[key] = {k: v.tolist() for k, v in numbers.items()}
        out[name] = dict(
            message_count=len(own),
            message_freq=(len(own) - 1) / span,
            timespan=span,
            var_stats=stats,
        )
    return out


def write(folder: FilePath, scene: str, ego: Agent, place: Place, duration: float, seed: list[int]):
    """Writes the files of one scene into ``folder``."""
    everything = messages(ego, place, duration, seed)
    start, end = ego.motion(0.0)[0] - 50, ego.motion(duration)[0] + 50
    route = np.stack(ego.path.at(np.arange(start, end, 0.5))[:2], 1)
    files = dict(everything, meta=meta(everything), route=place.to_map(route).round(3).tolist())
    for name, content in files.items():
        (folder / f'{scene}_{name}.json').write_text(json.dumps(content), encoding='utf-8')
