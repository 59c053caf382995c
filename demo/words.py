"""The page in two languages: the labels of its components, and what the server says, in English or Simplified Chinese.

Everything is written in English elsewhere; `say` looks up the same sentence here. What it does not know stays English.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

_EN = {
    "title": "# FaceVerse\nOne photograph in, a 3D head out: turn it, change it, take it with you.",
    "privacy": (
        "Your photograph is deleted right after the fit (if it shows several faces, with your next one). A video "
        "stays, so that the head can be drawn over it, until your next video or head. It, the head, its pictures and "
        "motions are deleted when you leave, at the latest after an idle hour. Pictures of the camera go to this "
        "server only and are not kept. Nothing is used for anything else."
    ),
    "photograph": "Photograph",
    "photographs": "Photographs of one person",
    "more_photographs": "Several photographs of one person",
    "more_help": (
        "Photographs of one person from different sides give one head, twelve at most. The first one decides pose, "
        "expression and light."
    ),
    "samples": "Or try one of these people; apart from the astronaut, none of them exists:",
    "cancel": "Cancel",
    "other_face": "Another face of this photograph",
    "open_saved": "Open a saved head (.json)",
    "simple_view": "3D head",
    "mesh": "Mesh of the files",
    "mesh_standard": "Standard",
    "mesh_light": "Light",
    "mesh_dense": "Dense: wrinkles and pores as geometry",
    "overlay": "Photograph and head",
    "overlay_label": "Photograph | fitted head",
    "stages": "Stages",
    "maps": "Maps",
    "losses": "Losses",
    "about": "Estimates",
    "other_person": "Another person",
    "other_help": "Take identity, skin or expression over from somebody else; the sliders under Mix say how much.",
    "other_photograph": "Photograph of the other person",
    "stranger": "A random person",
    "video_tab": "Video",
    "video_help": (
        "The head on the stage moves as the face in a video does; where there is none yet, it is found from the video. "
        "One minute and 200 MB at most."
    ),
    "whose": "Who is in the picture",
    "whose_stage": "The person on the stage",
    "whose_other": "Somebody else, who moves that head",
    "whose_video": "Somebody else, who comes onto the stage",
    "quality": "Quality",
    "quality_fast": "Fast",
    "quality_high": "High, about twice as long",
    "video_file": "Video of one face",
    "track_again": "Track the video again",
    "film": "Follow my camera",
    "film_help": "Or let the head move as you do. Pictures of your camera go to this server only and are not kept.",
    "open_motion": "Open a motion (.csv, .json, .npz, .fvtrack)",
    "play_motion": "Play",
    "draw_over": "Head over the video",
}
_ZH = {
    "title": "# FaceVerse\n一张照片，一个三维头像：旋转它，编辑它，把它带走。",
    "privacy": (
        "您的照片在重建完成后立即删除（若其中有多张人脸，则在您选择下一张照片时删除）。视频会保留到您的下一段视频或"
        "下一个头像，以便把头像叠加上去。视频、头像、图片和动作在您离开时删除，最迟在闲置一小时后删除。摄像头画面只发送到本服务器，不会保存。"
        "所有内容均不作他用。"
    ),
    "photograph": "照片",
    "photographs": "同一人的多张照片",
    "more_photographs": "同一人的多张照片",
    "more_help": "同一人从不同角度拍摄的照片（最多十二张）会合成一个头像。姿态、表情和光照以第一张为准。",
    "samples": "或者试试这些人；除宇航员外，他们都不存在：",
    "cancel": "取消",
    "other_face": "选择照片中的另一张脸",
    "open_saved": "打开已保存的头像（.json）",
    "simple_view": "三维头像",
    "mesh": "文件中的网格",
    "mesh_standard": "标准",
    "mesh_light": "精简",
    "mesh_dense": "稠密：皱纹和毛孔成为几何",
    "overlay": "照片与头像",
    "overlay_label": "照片 | 拟合的头像",
    "stages": "各阶段",
    "maps": "贴图",
    "losses": "损失曲线",
    "about": "估计值",
    "other_person": "另一个人",
    "other_help": "借用另一个人的长相、皮肤或表情；比例由“混合”中的滑块决定。",
    "other_photograph": "另一个人的照片",
    "stranger": "随机生成一个人",
    "video_tab": "视频",
    "video_help": "台上的头像会跟随视频中的人脸运动；若还没有头像，则从视频中求得。视频最长一分钟，最大 200 MB。",
    "whose": "画面中的人",
    "whose_stage": "台上的人",
    "whose_other": "另一个人，驱动台上的头像",
    "whose_video": "另一个人，把他放到台上",
    "quality": "质量",
    "quality_fast": "快速",
    "quality_high": "高，耗时约两倍",
    "video_file": "单人面部视频",
    "track_again": "重新跟踪该视频",
    "film": "跟随我的摄像头",
    "film_help": "或者让头像跟着您动。摄像头画面只发送到本服务器，不会保存。",
    "open_motion": "打开动作文件（.csv、.json、.npz、.fvtrack）",
    "play_motion": "播放",
    "draw_over": "叠加到视频上",
}
LABELS = {"en": _EN, "zh": _ZH}

# Sentences of the page and messages of the library, without the final stop. {} stands for what is kept, {say} for a
# message within a message. The first pattern that fits is taken.
_SENTENCES = {
    # Steps of a fit
    "Waiting for a free place": "正在排队",
    "First a head of your own, with its detail; then choose the other photograph again": (
        "请先等自己的头像及其细节完成，再重新选择另一张照片"
    ),
    "Waiting for a free place: {} before you": "正在排队：前面还有 {} 人",
    "Reading the photograph": "正在读取照片",
    "Reading the photographs": "正在读取照片",
    "Looking for the face": "正在寻找人脸",
    "Finding the shape of the head": "正在求解头部形状",
    "Matching skin and light": "正在匹配肤色与光照",
    "Matching the finer features": "正在匹配细微特征",
    "Reading the skin": "正在读取皮肤细节",
    "Taking the colours from the photograph": "正在从照片提取颜色",
    # The page
    "Cancelled": "已取消",
    "Something went wrong on the server. Try again, or try another photograph": (
        "服务器出了问题。请重试，或换一张照片"
    ),
    "This head was deleted after an hour without use. Choose the photograph again": (
        "该头像闲置一小时后已被删除。请重新选择照片"
    ),
    "**Done in {} s**: {} vertices, {} triangles": "**用时 {} 秒**：{} 个顶点，{} 个三角形",
    "{} vertices, {} triangles; the detail of the skin follows": "{} 个顶点，{} 个三角形；皮肤细节随后就到",
    "triangles": "个三角形",
    "dense mesh": "稠密网格",
    "Photograph": "照片",
    "Landmarks": "特征点",
    "Base model": "基础模型",
    "With detail": "加入细节",
    "Final head": "最终头像",
    "Texture": "纹理",
    "Texture without detail": "无细节的纹理",
    "Normal map": "法线贴图",
    "Displacement, black to white: {} mm": "位移，从黑到白：{} 毫米",
    "Seen in the photograph": "照片中可见的部分",
    "The head from all sides": "头像的各个侧面",
    "steps": "步",
    "detection": "检测",
    "landmarks": "关键点",
    "photometric coarse": "光度拟合（粗）",
    "photometric fine": "光度拟合（细）",
    "detail": "皮肤细节",
    "expression detail": "表情褶皱",
    "texture": "纹理",
    "Step": "步",
    "Loss, of where it began": "损失（相对于开始时）",
    "random person {}": "随机人物 {}",
    "the other photograph": "另一张照片",
    "Mixing with {say}: the sliders are under Mix, beside the 3D head": "正在与{say}混合：滑块在三维头像旁的“混合”中",
    "The model's own coordinates of this head, where 0 is average for its kind; no statement about the person": (
        "该头像在模型中的坐标，0 为同类的平均值；这不是对本人的判断"
    ),
    "years": "岁",
    "mm": "毫米",
    "degrees": "度",
    "the page has sent something that it never sends; reload it and try again": "页面发送了异常数据，请刷新后重试",
    "the page has sent something that it never sends; reload it and try again ({})": (
        "页面发送了异常数据，请刷新后重试（{}）"
    ),
    # Videos and motions
    "Following the face: {} of {} frames": "正在跟踪人脸：第 {} 帧，共 {} 帧",
    "Working out shape and movement from {} frames": "正在由 {} 帧求解形状与动作",
    "all {} places for cameras are taken on this server; try again in a minute": (
        "本服务器的 {} 个摄像头名额已满；请一分钟后再试"
    ),
    "this camera is not followed any more; start it again": "已不再跟随此摄像头，请重新开始",
    "nothing has been recorded; press the red button first": "尚未录制，请先按红色按钮",
    "no face has been recorded yet; look into the camera first": "尚未录到人脸，请先看向摄像头",
    "Following the face: {} frames": "正在跟踪人脸：{} 帧",
    "Drawing the head over the video: {} %": "正在把头像叠加到视频上：{} %",
    "{} frames, {} s, with a face in {} % of them": "{} 帧，{} 秒，其中 {} % 有人脸",
    "Overlay": "叠加",
    "One thing after the other: wait until the head is there with its detail, or cancel it": (
        "请一件一件来：等头像及其细节完成，或先取消"
    ),
    "There is no video any more. Choose it again": "视频已不在，请重新选择",
    "the upload was deleted in the meantime; choose the video again": "上传的文件已被删除，请重新选择视频",
    "{} has {} MB, more than {}; cut it, or film it smaller": "{} 有 {} MB，超过 {} MB；请截短，或以较小尺寸拍摄",
    "{} has {} x {} pixels, more than {}; film it smaller": "{} 为 {} x {} 像素，超过 {}；请以较小尺寸拍摄",
    "{} has {} MB, more than {}; reduce it": "{} 有 {} MB，超过 {} MB；请缩小",
    "{} is {} seconds long, more than {}; cut the part that you want": "{} 长 {} 秒，超过 {} 秒；请截取需要的部分",
    "{} is longer than {} seconds; cut the part you want": "{} 超过 {} 秒；请截取需要的部分",
    "{} is not a video that can be read; try an MP4 with H.264": "{} 不是可读取的视频；请使用 H.264 编码的 MP4",
    "no face was found in any of {} frames; it must be as wide as an eighth of the picture, or more": (
        "{} 帧中都没有找到人脸；人脸宽度至少要占画面的八分之一"
    ),
    "frame {} has {} x {} pixels, those before {} x {}; all frames of a video must have one size": (
        "第 {} 帧为 {} x {} 像素，之前的为 {} x {}；同一视频的所有帧必须大小一致"
    ),
    "{} has {} frames, more than {}; cut it": "{} 有 {} 帧，超过 {} 帧；请截短",
    "cannot read {} as a track: {}": "无法把 {} 读作动作文件：{}",
    "the face is never at rest: its expressions are measured from an average face": (
        "人脸没有静止的时刻：表情以平均人脸为基准"
    ),
    "{} holds no frame with a face yet": "{} 中还没有带人脸的帧",
    "{} rows whose Timecode is not later than the one before were left out": "有 {} 行的时间码不晚于前一行，已略去",
    "the model {} has no expression {}: left out": "模型 {} 没有表情 {}，已略去",
    "the model {} has none of these expressions ({}), so none can be moved": "模型 {} 没有这些表情（{}），无法驱动",
    # Uploads
    "the upload was deleted in the meantime; choose the photograph again": "上传的文件已被删除，请重新选择照片",
    "the upload was deleted in the meantime; send it again": "上传的文件已被删除，请重新上传",
    "this file is not an upload of yours; choose the photograph again": "这不是您上传的文件，请重新选择照片",
    "this file is not an upload of yours; upload it again": "这不是您上传的文件，请重新上传",
    "{} photographs are too many; choose at most {}": "{} 张照片太多了，最多选择 {} 张",
    # Faces
    "no face was found; use a photograph in which the face is well lit and at least 60 pixels wide": (
        "没有找到人脸；请使用光线充足、人脸宽度至少 60 像素的照片"
    ),
    "1 face was found, so face={} does not exist; use face=0": "只找到 1 张人脸，因此 face={} 不存在；请使用 face=0",
    "{} faces were found, so face={} does not exist; use face=0 to face={}": (
        "只找到 {} 张人脸，因此 face={} 不存在；请使用 face=0 到 face={}"
    ),
    "photograph {} ({}): {say}": "第 {} 张照片（{}）：{say}",
    # Warnings of a fit
    "{} faces were found and the largest was taken; face= chooses another": (
        "找到 {} 张人脸，已选择最大的一张；可另选一张"
    ),
    "the face is small: {} px between the outer eye corners, {} or more work best": (
        "人脸太小：两外眼角之间只有 {} 像素，达到 {} 像素以上效果最好"
    ),
    "the face is turned {} degrees; its far side is guessed": "人脸转过了 {} 度；看不见的一侧是推测的",
    "part of the face lies outside the picture; it is guessed, a photograph of the whole face shows it": (
        "人脸有一部分在画面之外，这部分是推测的；请使用拍到整张脸的照片"
    ),
    "the head fits the face poorly: {} % of the eye distance off on average, 2 to 3 % are usual; take an upright, "
    "undistorted photograph of the whole face": (
        "头像与人脸贴合得不好：平均偏差为两眼距离的 {} %，通常为 2 到 3 %；请使用端正、无变形、拍到整张脸的照片"
    ),
    "the face is very dark; colours are uncertain, more light on it helps": "人脸很暗，颜色不可靠；请增加光照",
    "{} of the face is overexposed; colours and shape are guessed there, less light helps": (
        "人脸有 {} 过度曝光，那里的颜色和形状是推测的；请减少光照"
    ),
    "{} of the face looks unlike skin, as if covered; what covers it ends up in the texture, and shape is guessed "
    "there: use a photograph with nothing before the face": (
        "人脸有 {} 不像皮肤，似乎被遮挡；遮挡物会进入纹理，那里的形状是推测的：请使用脸前没有遮挡的照片"
    ),
    "the face is very blurred; shape and texture are coarse, a sharper photograph shows more": (
        "人脸很模糊，形状和纹理较粗糙；请使用更清晰的照片"
    ),
    # Files
    "{} is empty (0 bytes); copy or download it again": "{} 是空文件（0 字节），请重新复制或下载",
    "{} is not a picture that can be read; its content must be JPEG, PNG, WebP, TIFF or HEIC": (
        "{} 不是可读取的图片；内容必须是 JPEG、PNG、WebP、TIFF 或 HEIC"
    ),
    "{} is a HEIC picture; to read it: pip install pillow-heif": "{} 是 HEIC 图片；读取它需要：pip install pillow-heif",
    "{} is {} x {} pixels, too small for a face; the shorter side must have at least {}": (
        "{} 只有 {} x {} 像素，容不下一张脸；短边至少要有 {} 像素"
    ),
    "{} has too many pixels ({}); reduce it below {} megapixels": "{} 的像素太多（{}）；请缩小到 {} 百万像素以下",
    "{} has too many pixels; reduce it below {} megapixels": "{} 的像素太多；请缩小到 {} 百万像素以下",
    "{} is cut short, part of its data is missing; copy or download it again": (
        "{} 不完整，缺少部分数据；请重新复制或下载"
    ),
    "{} is damaged and cannot be read ({}); copy or download it again": "{} 已损坏，无法读取（{}）；请重新复制或下载",
    "cannot restore {}: {}; export it again": "无法恢复 {}：{}；请重新导出",
    "{} belongs to the face model '{}' (sha256 {}), but the one loaded is '{}' (sha256 {}); load that one and pass it "
    "as model=": "{} 属于人脸模型“{}”（sha256 {}），而当前加载的是“{}”（sha256 {}）",
    "{} is no result: send the .json file that /fit or /edit returned": "{} 不是结果文件：请使用保存的 .json 文件",
    # Editing
    "{say}: changed by {} instead of {}, because this head is estimated at {} and the model's range is {} to {} ({})": (
        "{say}：只改变了 {}，而不是 {}，因为该头像的估计值为 {}，模型的范围是 {} 到 {}（{}）"
    ),
    "expression {}: {} is outside {}..{} and was clamped": "表情 {}：{} 超出 {}..{}，已截断",
    "this head carries no detail layer whose strength could change; fit the photograph with detail=True first": (
        "该头像没有可调节强度的皮肤细节"
    ),
    "the detail of this head was turned off, and {}": "该头像的细节已被关闭，且无法恢复",
    "give detail_seed or detail_from, not both": "不能同时使用另一种皮肤和另一个人的皮肤",
    "detail_from carries no detail; fit its photograph with detail=True first": "另一个人的头像没有皮肤细节",
    "cannot store this result: a parameter is not a finite number": "无法保存该结果：有一个参数不是有限的数",
}

_ATTRIBUTES = {
    "age": "年龄",
    "gender": "女 – 男",
    "weight": "胖瘦",
    "african": "非洲特征",
    "asian": "亚洲特征",
    "caucasian": "欧洲特征",
    "forehead height": "额高",
    "forehead width": "额宽",
    "forehead slope": "额倾角",
    "temple width": "太阳穴宽",
    "brow ridge": "眉骨",
    "brow height": "眉高",
    "brow angle": "眉角度",
    "eye size": "眼裂高",
    "eye width": "眼宽",
    "eye spacing": "眼距",
    "eye tilt": "眼角倾斜",
    "eye depth": "眼窝深度",
    "nose width": "鼻宽",
    "nose length": "鼻长",
    "nose protrusion": "鼻突出",
    "nose hump": "驼峰",
    "nose tip height": "鼻尖高度",
    "nose bridge width": "鼻梁宽",
    "cheekbone width": "颧骨宽",
    "cheekbone prominence": "颧骨突出",
    "cheek fullness": "脸颊饱满",
    "philtrum length": "人中长",
    "upper lip fullness": "上唇厚度",
    "lower lip fullness": "下唇厚度",
    "lip protrusion": "嘴唇突出",
    "mouth width": "嘴宽",
    "lip corner height": "嘴角高度",
    "jaw width": "下颌宽",
    "jaw angle": "下颌角",
    "chin height": "下巴高度",
    "chin prominence": "下巴前突",
    "chin width": "下巴宽",
    "ear size": "耳朵大小",
    "ear protrusion": "耳朵外展",
    "neck width": "颈宽",
}


def language_of(accept_language: str | None) -> str:
    """The language of the page that a browser likes best: "zh" or "en", which is also for all others.

    Args:
        accept_language: header of its requests, such as "zh-CN,zh;q=0.9,en;q=0.8".
    """
    likings = []
    for number, entry in enumerate((accept_language or "").split(",")):
        tag, _, options = entry.strip().partition(";")
        found = re.fullmatch(r"\s*q\s*=\s*([\d.]+)\s*", options)
        try:
            liking = float(found[1]) if found else 1.0
        except ValueError:
            liking = 0.0
        language = tag.strip().lower().partition("-")[0]
        if language in ("en", "zh") and liking > 0:
            likings.append((-liking, number, language))
    return min(likings)[2] if likings else "en"


def say(text: str, language: str) -> str:
    """A sentence of the page, or a message of the library, in a language; numbers and names in it stay.

    Args:
        text: in English, with or without a capital letter at its start and a stop at its end.
        language: "en" or "zh".
    """
    if language != "zh" or not text:
        return text
    stop = text.endswith(".")
    bare = text[:-1] if stop else text
    attribute = _ATTRIBUTES.get(bare.replace("_", " ").lower())
    if attribute is not None:
        return attribute
    for fits, chinese in _patterns():
        kept = fits(bare)
        if kept is not None:
            return _filled(chinese, [*kept.groups()], language) + ("。" if stop else "")
    return text


@lru_cache(maxsize=1)
def _patterns() -> list[tuple[Callable, str]]:
    """(function of a text -> match or None, Chinese) of each sentence, those without blanks first."""
    ordered = sorted(_SENTENCES.items(), key=lambda item: "{" in item[0])
    return [(re.compile(_expression(english)).fullmatch, chinese) for english, chinese in ordered]


def _expression(english: str) -> str:
    """The regular expression of a sentence; its first letter may be a capital one."""
    parts = [re.escape(part) for part in re.split(r"\{\w*\}", english)]
    first = english[0]
    if first.isalpha():
        parts[0] = f"[{first.lower()}{first.upper()}]" + parts[0][1:]
    return "(?s)" + "(.+?)".join(parts)


def _filled(chinese: str, kept: list[str], language: str) -> str:
    """The blanks of a sentence, in order; what {say} stands for is translated itself."""
    return re.sub(r"\{(\w*)\}", lambda blank: say(kept.pop(0), language) if blank[1] == "say" else kept.pop(0), chinese)
