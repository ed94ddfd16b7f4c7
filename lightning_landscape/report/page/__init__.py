"""``report.html``: what is in the folders of runs and commands, as one page that opens from the disk.

The page needs no network: charts, their library and pictures are in the file. :func:`write_report` makes it.
"""

from lightning_landscape.report.page.writing import write_report as write_report
