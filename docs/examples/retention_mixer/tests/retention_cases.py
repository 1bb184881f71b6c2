"""Small settings of retention, for hybridsim's tests over every mixer."""

from retention_mixer.settings import RetentionSettings

from hybridsim.components import RopeSettings

CASES = {
    "retention": {
        "chunk16": RetentionSettings(num_heads=2, head_k_dim=8, head_v_dim=16, chunk_size=16),
        "part_rotated": RetentionSettings(
            num_heads=3, head_k_dim=16, head_v_dim=8, rope=RopeSettings(rotary_dim=4)
        ),
    }
}
