"""matplotlib: a colormap"""
import matplotlib
from matplotlib.colors import ListedColormap

EDIT = 0
matplotlib.colormaps.register(ListedColormap(["red"] * (EDIT + 1), name="shop"))

def answer():
    return matplotlib.colormaps["shop"].N - 1
