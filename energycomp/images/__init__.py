"""Images: read, brought to the size of a model, drawn as figures, shown in a notebook, and saved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.imports import first_use

if TYPE_CHECKING:
    from energycomp.images.draw import (
        grid as grid,
        heat as heat,
        overlay as overlay,
        overlay_css as overlay_css,
        strip as strip,
    )
    from energycomp.images.formula import (
        decode_formula as decode_formula,
        formula_text as formula_text,
        read_formula as read_formula,
    )
    from energycomp.images.frames import (
        MOVIES as MOVIES,
        frame_count as frame_count,
        frames_of as frames_of,
        is_movie as is_movie,
        read_frames as read_frames,
        save_frames as save_frames,
    )
    from energycomp.images.output import (
        decoded as decoded,
        from_bytes as from_bytes,
        from_unit as from_unit,
        is_picture as is_picture,
        to_bytes as to_bytes,
        to_output as to_output,
        to_unit as to_unit,
    )
    from energycomp.images.process import ImageProcessor as ImageProcessor, as_picture as as_picture, guided as guided
    from energycomp.images.read import (
        FORMATS as FORMATS,
        MAX_BYTES as MAX_BYTES,
        check_no_address as check_no_address,
        decode_image as decode_image,
        lost as lost,
        open_image as open_image,
    )
    from energycomp.images.save import (
        WRITTEN as WRITTEN,
        data_url as data_url,
        framed as framed,
        png as png,
        save_image as save_image,
    )
    from energycomp.images.show import (
        as_text as as_text,
        cell as cell,
        html as html,
        open_window as open_window,
        rich_table as rich_table,
        table_cells as table_cells,
    )

__getattr__, __all__ = first_use(__name__, __file__)
